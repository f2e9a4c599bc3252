"""The kinds of picture that a study's file can ask for, with what each needs of its runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from spectra_exp.presentation.style import COLUMN, DOUBLE
from spectra_exp.reporting.figures import temperature_figures, temperature_reports
from spectra_exp.reporting.figures.expert_usage import LayerUsage, StackedUsage
from spectra_exp.reporting.figures.labels import by_ablation as naming_by_ablation
from spectra_exp.reporting.figures.labels import by_method
from spectra_exp.reporting.figures.spec import Compose
from spectra_exp.reporting.figures.sweeps import SweepCurves, SweepHeat
from spectra_exp.reporting.figures.tradeoff import Tradeoff
from spectra_exp.reporting.figures.training import Curve, Training
from spectra_exp.reporting.tables.spec import Choice

HISTORY, SNAPSHOTS, SUMMARY = "history.parquet", "routing/step-*.npz", "summary.json"


def training(
    curves: Literal["losses", "balance", "gradients", "entropy"],
    reference: Choice | None = None,
    by_ablation: bool = False,
) -> Training:
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


# What a picture's runs must have, and what makes it of the options that its declaration gives.
KINDS: dict[str, tuple[str, Callable[..., Compose]]] = {
    "curve": (SUMMARY, SweepCurves),
    "heat": (SUMMARY, SweepHeat),
    "tradeoff": (SUMMARY, Tradeoff),
    "training": (HISTORY, training),
    "stacked_usage": (SNAPSHOTS, StackedUsage),
    "layer_usage": (SNAPSHOTS, LayerUsage),
    "temperature_comprehensive": (HISTORY, lambda: temperature_figures.comprehensive),
    "temperature_dynamics": (HISTORY, lambda: temperature_figures.dynamics),
    "temperature_entropy": (HISTORY, lambda: temperature_figures.entropy),
    "temperature_schedules": (HISTORY, lambda: temperature_figures.schedule_comparison),
    "temperature_utilization": (SNAPSHOTS, lambda: temperature_figures.utilization),
    "temperature_inequality": (SNAPSHOTS, lambda: temperature_figures.utilization_analysis),
}
# Figures in JSON.
REPORTS = {
    "temperature_summary": temperature_reports.summary,
    "temperature_specialization": temperature_reports.specialization,
}
