"""What a configuration takes from the model that it starts from, filled in before its rules are checked."""

from __future__ import annotations

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import RerouteConfig, SourceModelConfig

# The value of data.tokenizer that stands for the source's own.
SOURCE = "source"


def resolve_source(x: Experiment, typed: dict[str, str]) -> None:
    """Fill in the source's number of experts, its k and its tokenizer. Raises ConfigError for an unusable source.

    `typed`: what was typed, by key.
    """
    if not isinstance(x.model, SourceModelConfig):
        if x.data.tokenizer == SOURCE:
            raise ConfigError(
                "data.tokenizer", "'source' was given, but the model has no source", "give model=upcycle or a path"
            )
        return
    from spectra_exp.moe.source import source_facts

    facts = source_facts(x.model)
    if isinstance(x.model, RerouteConfig):
        if x.model.num_experts not in (None, facts.num_experts):
            raise ConfigError(
                "model.num_experts",
                f"{x.model.num_experts} was given, but the source has {facts.num_experts} experts in each layer",
                "drop it",
            )
        x.model.num_experts = facts.num_experts
        x.model.top_k = x.model.top_k or facts.top_k
    if x.data.tokenizer == SOURCE:
        if not (facts.folder / "tokenizer.json").is_file():
            raise ConfigError(
                "data.tokenizer",
                f"{facts.folder} has no tokenizer.json",
                "give data.tokenizer=PATH, the tokenizer that the model was trained with",
            )
        x.data.tokenizer = str(facts.folder)
