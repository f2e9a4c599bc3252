"""Which run a configuration is: a hash over everything resolved that can change its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from spectra_exp.config.schema import Experiment, result_values
from spectra_exp.moe.schema import SourceModelConfig, kind_of
from spectra_exp.moe.source import source_fingerprint, source_folder
from spectra_exp.routing.osr import NoOsr


@dataclass(frozen=True)
class Identity:
    """run_id: readable name and 8 hex digits of the signature; cell_id: the same without the seed."""

    run_id: str
    cell_id: str
    signature: dict[str, Any]


def identify(experiment: Experiment, data_fingerprint: str, device: str) -> Identity:
    """Identity of a run on data of this content and a device of this kind ("cpu", "cuda")."""
    values = result_values(experiment)
    # The content counts, not where it lies.
    values["data"] = {"fingerprint": data_fingerprint, **_data_options(experiment)}
    if isinstance(experiment.model, SourceModelConfig):
        content = source_fingerprint(source_folder(experiment.model))
        values["model"] |= {"kind": kind_of(experiment.model), "source": content}
    values["trainer"]["device"] = device
    if device != "cpu":
        values["trainer"].pop("cpu_threads")
    seedless = {k: v for k, v in values.items() if k != "seed"}
    stem = run_name(experiment)
    return Identity(
        run_id=f"{stem}-s{experiment.seed}-{digest(values)}", cell_id=f"{stem}-{digest(seedless)}", signature=values
    )


def _data_options(experiment: Experiment) -> dict[str, Any]:
    keys = ("sequence_length", "cross_document", "evaluation_tokens", "probe_tokens")
    options = {key: getattr(experiment.data, key) for key in keys}
    # Null is left out: runs from before there was the option keep their ids.
    later = {key: getattr(experiment.data, key) for key in ("final_evaluation_tokens", "hold_out_domain")}
    return options | {key: value for key, value in later.items() if value is not None}


def run_name(experiment: Experiment) -> str:
    """Readable part of a run's name, from resolved values alone: the same run has the same name by any route."""
    parts = [
        *experiment.router.name_parts(),
        *([] if isinstance(experiment.osr, NoOsr) else [experiment.osr.solver]),
        experiment.selection.rule,
        f"e{experiment.model.num_experts}k{experiment.model.top_k}",
        *([kind_of(experiment.model)] if isinstance(experiment.model, SourceModelConfig) else []),
        experiment.data.name,
    ]
    return "-".join(parts)


def digest(values: Any, digits: int = 8) -> str:
    """Hex digits of a hash of plain values, independent of key order."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
