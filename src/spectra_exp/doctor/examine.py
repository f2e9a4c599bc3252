"""`doctor()`: every check of a model, one after the other, and the model as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from spectra_exp.doctor.examined import SEED, Examined
from spectra_exp.doctor.keeping import in_float32, kept
from spectra_exp.doctor.registry import FAULT, Check, Finding, chosen_checks
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs.provenance import versions


@dataclass(frozen=True)
class Report:
    """The findings on one model. `notes`: what a reader must know of how they were made.

    `made_with`: versions, seeds, and on what the model ran, each by its name.
    """

    name: str
    findings: Sequence[Finding]
    notes: Sequence[str] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def faults(self) -> list[Finding]:
        """The checks that found a fault."""
        return [finding for finding in self.findings if finding.outcome.status == FAULT]

    def status(self, check: str) -> str:
        """What a check found, by its name. ConfigError for one that was not carried out, with the nearest."""
        found = {finding.check.name: finding.outcome.status for finding in self.findings}
        if check not in found:
            raise ConfigError.unknown("check", check, found)
        return found[check]

    def as_dict(self) -> dict[str, Any]:
        """What findings.json holds."""
        head = {"model": self.name, "notes": list(self.notes), "made_with": dict(self.made_with)}
        return head | {"findings": [one.as_dict() for one in self.findings]}


def doctor(
    model: nn.Module,
    batches: Iterable[Tensor | Mapping[str, Tensor]],
    trainer: Any = None,
    checks: Sequence[str] = (),
    say: Callable[[Check], None] = lambda check: None,
) -> Report:
    """The findings on a sparse causal language model of transformers or of this project, which is left as it was.

    `batches`: ids [B, S], or mappings with `input_ids`, of text without padding. `trainer`: a Hugging Face Trainer of
    the model: its micro-batches a step, and the optimizer steps that it takes, are examined too; it is left as it was.
    `checks`: names, all where empty; `say`: told of each check before it begins. The checks run in float32; memory: the
    model in float32 beside its own precision, and one forward and one backward pass. Raises ConfigError for a model
    that is dense or has an encoder, and for text that is too short.
    """
    chosen = chosen_checks(checks)
    if not isinstance(model, PreTrainedModel):
        problem = f"{type(model).__name__} is no model of transformers"
        fix = "give the PreTrainedModel itself, without a module around it, or make yours one (docs/doctor.md)"
        raise ConfigError("model", problem, fix)
    transformers_logging.disable_progress_bar()
    dtype = getattr(model, "dtype", torch.float32)
    with kept(model):
        model.eval()
        with in_float32(model):
            examined = Examined(model, [_ids(batch) for batch in batches], dtype, trainer)
            try:
                findings = [_found(one, examined, say) for one in chosen]
            finally:
                examined.close()
    return Report(type(model).__name__, findings, made_with=_made_with(examined))


def _made_with(x: Examined) -> dict[str, Any]:
    rows, length = x.ids_BS.shape
    return {
        **{name: versions()[name] for name in ("spectra-exp", "torch", "transformers", "python")},
        "device": str(x.ids_BS.device),
        "dtype of the model": str(x.dtype).removeprefix("torch."),
        "dtype of the checks": "float32",
        "sequences of most checks": f"{rows} of {length} tokens",
        "tokens of the loads": x.num_tokens,
        "seed of the checks": SEED,
    }


def _found(one: Check, examined: Examined, say: Callable[[Check], None]) -> Finding:
    say(one)
    with kept(examined.model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return one.run(examined)


def _ids(batch: Tensor | Mapping[str, Tensor]) -> Tensor:
    ids_BS = batch if isinstance(batch, Tensor) else batch["input_ids"]
    mask = None if isinstance(batch, Tensor) else batch.get("attention_mask")
    if mask is not None and not bool(mask.bool().all()):
        raise ConfigError(
            "batches", "a batch has padding", "give sequences of one length: padding is added by the checks"
        )
    if ids_BS.ndim != 2 or ids_BS.is_floating_point():
        shape = f"{str(ids_BS.dtype).removeprefix('torch.')} {list(ids_BS.shape)}"
        raise ConfigError("batches", f"ids of a batch are {shape}", "give int64 [sequences, tokens]")
    return ids_BS
