"""The kinds of picture that a study's file can ask for, with what each needs of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from spectra_exp.config.typed import value_text
from spectra_exp.presentation.style import COLUMN, DOUBLE
from spectra_exp.reporting.collect import INFERENCE, TRAINING_RULE
from spectra_exp.reporting.figures import temperature_curves, temperature_reports, temperature_usage
from spectra_exp.reporting.figures.expert_usage import LayerUsage, StackedUsage
from spectra_exp.reporting.figures.labels import RULES, by_method
from spectra_exp.reporting.figures.labels import by_ablation as naming_by_ablation
from spectra_exp.reporting.figures.spec import Compose
from spectra_exp.reporting.figures.sweeps import SweepCurves, SweepHeat
from spectra_exp.reporting.figures.tradeoff import Tradeoff
from spectra_exp.reporting.figures.training import Curve, Training
from spectra_exp.reporting.tables.spec import Choice

HISTORY, SNAPSHOTS, SUMMARY = "history.parquet", "routing/step-*.npz", "summary.json"
# Rules of routing that a picture shows, where they were measured.
SHOWN_RULES = {
    "own": ("", TRAINING_RULE),
    "all": tuple(RULES),
    "inference": tuple(rule for rule in RULES if INFERENCE in rule),
}
METRICS = ("val_loss", "load_cv", "max_vio", "expert_overlap")


def curve(
    over: list[str],
    label: str = "",
    metrics: Sequence[str] = METRICS,
    scale: Literal["linear", "log", "category"] = "category",
    joined: bool = True,
    rules: str = "own",
    texts: Mapping[Any, str] | None = None,
    apart: str = "",
) -> Compose:
    """A line for each method over the values of `over`; `apart`: what stands apart beside methods, in the report."""
    label = label or ", ".join(key.rpartition(".")[2] for key in over)
    return SweepCurves(tuple(over), label, tuple(metrics), scale, joined, SHOWN_RULES[rules], _texts(texts))


def heat(
    x: str,
    y: str,
    panels: str,
    metrics: Sequence[str],
    x_label: str = "",
    y_label: str = "",
    texts: Mapping[Any, str] | None = None,
    rules: str = "",
) -> Compose:
    """A map of each metric over `x` and `y` for each value of `panels`; `texts`: how those are printed."""
    measured = tuple(metric + rule for rule in SHOWN_RULES[rules] for metric in metrics) if rules else tuple(metrics)
    return SweepHeat((x, x_label or x), (y, y_label or y), (panels, _texts(texts)), measured)


def training(
    curves: Literal["losses", "balance", "gradients", "entropy"],
    reference: Choice | None = None,
    by_ablation: bool = False,
) -> Compose:
    """Curves over training of each method, or of each variant of the full one in a row of panels for each rule."""
    chosen = {
        "losses": (
            Curve("train_loss", "train"),
            Curve("val_loss", begin=0.5),
            Curve("val_loss", begin=0.1, reference=reference or {}),
        ),
        "balance": (Curve("load_cv"), Curve("max_vio"), Curve("gram_orthogonality")),
        "gradients": tuple(
            Curve(f"grad_norm_{group}", "train", y_scale="log") for group in ("router", "experts", "other")
        ),
        "entropy": (Curve("routing_entropy"),),
    }[curves]
    if by_ablation:
        return Training(chosen, (DOUBLE, 2.9), arms=("osr",), naming=naming_by_ablation)
    return Training(chosen, (DOUBLE, 3.0) if len(chosen) > 1 else (COLUMN, 3.6), naming=by_method)


def _texts(texts: Mapping[Any, str] | None) -> dict[str, str]:
    return {value_text(value): text for value, text in (texts or {}).items()}


# What a picture's runs must have, and what makes it of the options that its declaration gives.
KINDS: dict[str, tuple[str, Callable[..., Compose]]] = {
    "curve": (SUMMARY, curve),
    "heat": (SUMMARY, heat),
    "tradeoff": (SUMMARY, Tradeoff),
    "training": (HISTORY, training),
    "stacked_usage": (SNAPSHOTS, StackedUsage),
    "layer_usage": (SNAPSHOTS, LayerUsage),
    "temperature_comprehensive": (HISTORY, lambda: temperature_curves.comprehensive),
    "temperature_dynamics": (HISTORY, lambda: temperature_curves.dynamics),
    "temperature_entropy": (HISTORY, lambda: temperature_curves.entropy),
    "temperature_schedules": (HISTORY, lambda: temperature_curves.schedule_comparison),
    "temperature_utilization": (SNAPSHOTS, lambda: temperature_usage.utilization),
    "temperature_inequality": (SNAPSHOTS, lambda: temperature_usage.utilization_analysis),
}
# Figures in JSON.
REPORTS = {
    "temperature_summary": temperature_reports.summary,
    "temperature_specialization": temperature_reports.specialization,
}
