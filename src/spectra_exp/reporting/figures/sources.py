"""Histories and routing snapshots of runs, each read once; a damaged one is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_exp.measure.others import figure
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.stored import StoredRun

if TYPE_CHECKING:
    import pandas as pd

Curves = dict[tuple[str, str, str], dict[int, float]]


class Sources:
    """What the folders under `runs_folder` hold; `stored`: those of them that are read already, by run id."""

    def __init__(self, runs_folder: Path, stored: Mapping[str, StoredRun] | None = None):
        self._runs_folder = runs_folder
        self._stored = dict(stored or {})
        self._curves: dict[str, Curves] = {}

    def curve(self, run_id: str, split: str, metric: str, layer: str = "all") -> dict[int, float]:
        """The metric's values by step that are finite and within its range; empty without any."""
        found = self._curves_of(run_id).get((split, layer, metric), {})
        possible, sizes = figure(metric).range, self._run(run_id).sizes
        return {step: value for step, value in found.items() if possible.holds(value, sizes)}

    def not_usable(self, run_id: str, split: str, metric: str, layer: str = "all") -> int:
        """How many values of the curve are NaN, infinite or out of the metric's range."""
        found = self._curves_of(run_id).get((split, layer, metric), {})
        return len(found) - len(self.curve(run_id, split, metric, layer))

    def layers(self, run_id: str, split: str, metric: str) -> list[str]:
        """The layers that have the metric, by number."""
        found = [layer for s, layer, m in self._curves_of(run_id) if (s, m) == (split, metric) and layer != "all"]
        return sorted(found, key=int)

    def snapshots(self, run_id: str) -> list[RoutingSnapshot]:
        """The whole routing snapshots of a run, by step."""
        return list(self._run(run_id).snapshots.values())

    def _run(self, run_id: str) -> StoredRun:
        if run_id not in self._stored:
            self._stored[run_id] = StoredRun(self._runs_folder / run_id)
        return self._stored[run_id]

    def _curves_of(self, run_id: str) -> Curves:
        if run_id not in self._curves:
            history = self._run(run_id).history
            self._curves[run_id] = {} if history is None else _by_curve(history)
        return self._curves[run_id]


def _by_curve(history: pd.DataFrame) -> Curves:
    curves: Curves = {}
    columns = (history[name].tolist() for name in ("split", "layer", "metric", "step", "value"))
    for split, layer, metric, step, value in zip(*columns, strict=True):
        curves.setdefault((split, layer, metric), {})[step] = value
    return curves
