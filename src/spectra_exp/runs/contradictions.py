"""Whether a finished run's figures can be: sizes, steps and seed, and that its files say the same of its end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spectra_exp.config.schema import LARGEST_SEED
from spectra_exp.runs.config_file import setting
from spectra_exp.runs.history import CHANCE, FINAL, TRAIN, TRAINING_RULE, VALIDATION

if TYPE_CHECKING:
    import pandas as pd

# Figures are kept to the last digit; a mean over layers rounds.
CLOSE = 1e-9

# A thousand times what the largest models have: a figure above is no figure of a run.
MOST_PARAMETERS = 1e16
MOST_FLOPS = 1e17


def summary_contradiction(summary: Mapping[str, Any], config: Mapping[str, Any] | None) -> str | None:
    """What of a completed run's summary cannot be, alone or beside its configuration, in words, or None."""
    return next(_impossible(summary, config or {}), None)


def history_contradiction(summary: Mapping[str, Any], history: pd.DataFrame) -> str | None:
    """Where the rows of the history's last step differ from the summary of a completed run, in words, or None.

    history: rows as `read_history` gives them. Figures that one of the two lacks, or that are not finite, are passed
    over.
    """
    if history.empty:
        return "its history is empty"
    last = int(history["step"].max())
    if summary.get("steps") != last:
        return f"its history ends at step {last} and its summary at step {summary.get('steps')}"
    end = history[(history["step"] == last) & (history["layer"] == "all")]
    found: dict[str, dict[str, float]] = {}
    for split, metric, value in zip(*(end[c].tolist() for c in ("split", "metric", "value")), strict=True):
        found.setdefault(split, {})[metric] = value
    scored = FINAL if FINAL in found else VALIDATION
    train = {name: value for name, value in found.get(TRAIN, {}).items() if name == "train_loss"}
    # Metrics over the fractions of training are of the usual set also where the end was scored on a larger one.
    pairs = [
        ("metrics", summary["metrics"], found.get(VALIDATION, {}) | found.get(scored, {}) | train),
        ("metrics_training_rule", summary["metrics_training_rule"], found.get(scored + TRAINING_RULE, {})),
        ("floors", summary["floors"], {n.removesuffix("_floor"): v for n, v in found.get(CHANCE, {}).items()}),
    ]
    for group, told, measured in pairs:
        for name in sorted(told.keys() & measured.keys()):
            if _differ(told[name], measured[name]):
                return f"its history contradicts its summary: {group}.{name} {measured[name]:.6g}, not {told[name]:.6g}"
    return None


def _impossible(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    seed, steps, wanted = summary["seed"], summary.get("steps"), summary.get("max_steps")
    if not 0 <= seed <= LARGEST_SEED:
        yield f"seed {seed} is not between 0 and {LARGEST_SEED}"
    if type(steps) is not int or steps < 1:
        yield f"completed after {steps!r} steps"
    elif wanted is not None and steps != wanted:
        yield f"completed, but {steps} steps of {wanted}"
    for key, told in (("seed", seed), ("trainer.max_steps", wanted)):
        configured = setting(config, key)
        if None not in (told, configured) and told != configured:
            yield f"its configuration has {key} {configured}, and its summary {told}"
    sizes = summary["parameters"]
    for name, size in sizes.items():
        if size is not None and not 1 <= size <= MOST_PARAMETERS:
            yield f"{name} parameters are {size}"
    total, active = sizes.get("total"), sizes.get("active")
    if None not in (total, active) and active > total:
        yield f"{active} active parameters of {total}"
    flops = summary.get("flops_per_token")
    if flops is not None and not 0 < flops <= MOST_FLOPS:
        yield f"{flops} FLOPs per token"
    for name, layers in (summary.get("metrics_by_layer") or {}).items():
        defined = [value for value in layers if value is not None]
        told = summary["metrics"].get(name)
        if defined and told is not None and _differ(told, sum(defined) / len(defined)):
            yield f"metrics.{name} {told:.6g} is not the mean over its layers, {sum(defined) / len(defined):.6g}"


def _differ(told: float | None, measured: float | None) -> bool:
    if told is None or measured is None or not (math.isfinite(told) and math.isfinite(measured)):
        return False
    return not math.isclose(told, measured, rel_tol=CLOSE, abs_tol=1e-12)
