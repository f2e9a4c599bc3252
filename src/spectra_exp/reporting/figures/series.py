"""Values of runs by seed, and their means and intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping

from spectra_exp.presentation.panels import Points
from spectra_exp.reporting.figures.sources import Sources
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.statistics.intervals import Interval, mean_interval


def training_curves(row: Row, sources: Sources, split: str, metric: str) -> dict[int, dict[int, float]]:
    """The metric over all layers by seed and step, of the seeds that have any."""
    found = {seed: sources.curve(run_id, split, metric) for seed, run_id in sorted(row.runs.items())}
    return {seed: curve for seed, curve in found.items() if curve}


def over_seeds(curves: Mapping[int, Mapping[int, float]]) -> tuple[tuple[int, ...], Points]:
    """The steps, and at each the interval of the mean over the seeds that have a value there."""
    steps = tuple(sorted({step for curve in curves.values() for step in curve}))
    return steps, tuple(mean_interval(curve.get(step) for curve in curves.values()) for step in steps)


def final(section: Section, row: Row, metric: str) -> Interval | None:
    """The interval that the tables print for the row."""
    return mean_interval(section.values(row, metric).values())


def lost_values(row: Row, sources: Sources, split: str, metric: str) -> list[str]:
    """For each seed with values of the curve that are not finite or out of range, how many were left out."""
    counts = {seed: sources.not_usable(run_id, split, metric) for seed, run_id in sorted(row.runs.items())}
    what = f"values of {metric} not finite or out of range, left out"
    return [f"{row.label}, seed {seed}: {n} {what}" for seed, n in counts.items() if n]
