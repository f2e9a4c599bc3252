"""One run before it begins: checked, with its data at hand, its identity and its folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.config.schema import Experiment
from spectra_exp.data.corpus import Corpus, data_fingerprint, load_corpus
from spectra_exp.foundations.devices import training_device
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import SourceModelConfig
from spectra_exp.moe.source import source_facts
from spectra_exp.runs.best_long import resolve_best_long
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.identity import Identity, identify
from spectra_exp.runs.limits import limit_lifted
from spectra_exp.runs.ranks import check_started, with_processes

log = logging.getLogger(__name__)

# Ends that stand: such a run is not run again unless told to.
FINAL = ("completed", "diverged", "not_run")


@dataclass(frozen=True, eq=False)
class Plan:
    """A checked experiment with its data at hand, its identity and its folder."""

    experiment: Experiment
    corpus: Corpus
    identity: Identity
    folder: RunFolder
    device: str

    def finished(self) -> bool:
        """Whether the run completed."""
        return self.folder.status() == "completed"

    def stands(self) -> bool:
        """Whether the run has an end that another attempt would only repeat, unless one is asked for."""
        status = self.folder.status()
        if status == "not_run":
            return not limit_lifted(self.folder.read_summary(), self.experiment)
        return status in FINAL


def plan(experiment: Experiment) -> Plan:
    """Everything that can be wrong before training, found now. Raises ConfigError."""
    check_started()
    device = training_device(experiment.trainer.device)
    experiment = with_processes(experiment)
    fingerprint = data_fingerprint(experiment.data)
    experiment = resolve_best_long(experiment, lambda x: identify(x, fingerprint, device).run_id)
    corpus = _corpus(experiment, fingerprint)
    check_vocabulary(experiment, corpus)
    identity = identify(experiment, fingerprint, device)
    folder = RunFolder(Path(experiment.outputs) / "runs", identity.run_id)
    return Plan(experiment, corpus, identity, folder, device)


def check_vocabulary(experiment: Experiment, corpus: Corpus) -> None:
    """Raise ConfigError when the model's embedding has no row for a token.

    A source need know the tokens of the text alone: many have a padding token beyond their embedding.
    """
    needed = corpus.vocabulary_size
    if not isinstance(experiment.model, SourceModelConfig):
        rows = experiment.model.vocabulary_size
        if rows is not None and rows < needed:
            problem = f"the model's {rows} ids are fewer than the tokenizer's {needed}"
            raise ConfigError("model.vocabulary_size", problem, f"give at least {needed} or none")
        return
    facts = source_facts(experiment.model)
    if facts.vocabulary_size >= needed or (largest := corpus.largest_id()) < facts.vocabulary_size:
        return
    token = corpus.load_tokenizer().id_to_token(largest)
    problem = f"the text has the token {token!r} of id {largest}, and the source only {facts.vocabulary_size} ids"
    fix = "give data.tokenizer=source, or one whose ids the source knows"
    if experiment.data.tokenizer == str(facts.folder):
        fix = f"take it out of the text, or save the source anew after resize_token_embeddings({needed})"
    raise ConfigError("data.tokenizer", problem, fix)


_LOADED: dict[tuple[Path, str], Corpus] = {}


def _corpus(experiment: Experiment, fingerprint: str) -> Corpus:
    """The corpus of this fingerprint, loaded once per process and cache, in which its files lie."""
    cache = Path(experiment.outputs) / "cache"
    if (cache, fingerprint) not in _LOADED:
        _LOADED[cache, fingerprint] = load_corpus(experiment.data, cache, log.info)
    return _LOADED[cache, fingerprint]
