"""Which run a configuration is: a hash over everything resolved that can change its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from spectra_exp.config.schema import Experiment
from spectra_exp.moe.schema import SourceModelConfig, kind_of
from spectra_exp.moe.source import source_fingerprint, source_folder

# Groups that cannot change a result, and presets, whose effect is in the groups they set.
LABELS = (
    "baseline",
    "ablation",
    "logger",
    "launch",
    "search",
    "debug",
    "choices",
    "overrides",
    "force",
    "refresh",
    "study",
    "outputs",
)


@dataclass(frozen=True)
class Identity:
    """run_id: readable name and 8 hex digits of the signature; cell_id: the same without the seed."""

    run_id: str
    cell_id: str
    signature: dict[str, Any]


def result_values(experiment: Experiment) -> dict[str, Any]:
    """Everything of the configuration that can change the result, as plain values (data paths included)."""
    return _fields_of_result(experiment, skip=LABELS)


def _fields_of_result(node: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {}
    for f in fields(node):
        if f.name in skip or f.metadata.get("affects_result") is False:
            continue
        value = getattr(node, f.name)
        if f.metadata.get("later") and value == f.default:
            continue
        values[f.name] = _fields_of_result(value) if is_dataclass(value) else value
    return values


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
    parts = [experiment.router.name]
    if experiment.router.name == "spectra":
        parts += [experiment.router.sequence, experiment.osr.solver]
    parts += [
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
