"""All registered metrics of an evaluation, or of a training run's fractions, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from spectra_exp.measure import balance, boundaries, decision, separation, specialization, swing  # noqa: F401 (they register their metrics)
from spectra_exp.measure.base import METRICS, OF_EVALUATION, MetricTable, Reduction
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.floors import evaluation_floors, trajectory_floors
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.measure.stability import layer_trajectories
from spectra_exp.measure.swing import LayerTraining, swing_floors


def compute_metrics(stats_per_layer: Sequence[LayerStatistics]) -> MetricTable:
    """Every metric of one evaluation, per layer and averaged over layers."""
    return _table(stats_per_layer, OF_EVALUATION)


def compute_floors(stats_per_layer: Sequence[LayerStatistics], *, seed: int = 0) -> MetricTable:
    """The chance floors of one evaluation as `<metric>_floor`; seconds per layer, so ask for them at the end."""
    return _floor_table([evaluation_floors(stats, seed) for stats in stats_per_layer])


def compute_stability(snapshots: Sequence[RoutingSnapshot]) -> MetricTable:
    """Every metric over the kept fractions of training, per layer and averaged over layers."""
    return _table(layer_trajectories(snapshots), ("fractions",))


def compute_stability_floors(snapshots: Sequence[RoutingSnapshot], *, seed: int = 0) -> MetricTable:
    """The chance floors of the metrics over fractions as `<metric>_floor`."""
    return _floor_table([trajectory_floors(t, seed) for t in layer_trajectories(snapshots)])


def compute_swing(trainings: Sequence[LayerTraining]) -> MetricTable:
    """Every metric over the logged steps of training, per layer and averaged over layers."""
    return _table(trainings, ("steps",))


def compute_swing_floors(trainings: Sequence[LayerTraining], *, seed: int = 0) -> MetricTable:
    """The chance floors of the metrics over logged steps as `<metric>_floor`."""
    return _floor_table([swing_floors(t, seed) for t in trainings])


def describe_metrics() -> list[dict[str, str]]:
    """One row per metric (name, direction, unit, reduction, floor, meaning, range) for help and tables."""
    return [
        {
            "name": m.name,
            "direction": m.direction,
            "unit": m.unit,
            "reduction": m.reduction,
            "floor": m.floor_name or "",
            "meaning": m.meaning,
            "range": m.range.text,
        }
        for m in sorted(METRICS.values(), key=lambda m: m.name)
    ]


def _table(layers: Sequence[Any], reductions: tuple[Reduction, ...]) -> MetricTable:
    chosen = [m for m in METRICS.values() if m.reduction in reductions]
    return MetricTable({m.name: [finite(m.function(layer)) for layer in layers] for m in chosen})


def _floor_table(floors: Sequence[dict[str, float]]) -> MetricTable:
    names = dict.fromkeys(name for by_name in floors for name in by_name)
    return MetricTable(
        {called: [f.get(name) for f in floors] for name in names if (called := METRICS[name].floor_name)}
    )


def finite(value: float | None) -> float | None:
    """The value, None for one that is not finite."""
    # A diverged run has NaN probabilities; such a figure is not defined.
    return value if value is not None and math.isfinite(value) else None
