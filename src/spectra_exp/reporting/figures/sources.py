"""Histories and routing snapshots of runs, each read once; a damaged one is named and left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import History
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths

Value = TypeVar("Value")
Curves = dict[tuple[str, str, str], dict[int, float]]


class Sources:
    """What the folders under `runs_folder` hold. `damaged`: why a file was left out, by path."""

    def __init__(self, runs_folder: Path):
        self.damaged: dict[Path, str] = {}
        self._runs_folder = runs_folder
        self._curves: dict[str, Curves] = {}
        self._snapshots: dict[str, list[RoutingSnapshot]] = {}

    def curve(self, run_id: str, split: str, metric: str, layer: str = "all") -> dict[int, float]:
        """The metric's finite values by step; empty without any."""
        found = self._curves_of(run_id).get((split, layer, metric), {})
        return {step: value for step, value in found.items() if math.isfinite(value)}

    def not_finite(self, run_id: str, split: str, metric: str, layer: str = "all") -> int:
        """How many values of the curve are NaN or infinite."""
        found = self._curves_of(run_id).get((split, layer, metric), {})
        return sum(not math.isfinite(value) for value in found.values())

    def layers(self, run_id: str, split: str, metric: str) -> list[str]:
        """The layers that have the metric, by number."""
        found = [layer for s, layer, m in self._curves_of(run_id) if (s, m) == (split, metric) and layer != "all"]
        return sorted(found, key=int)

    def snapshots(self, run_id: str) -> list[RoutingSnapshot]:
        """The whole routing snapshots of a run, by step."""
        if run_id not in self._snapshots:
            paths = snapshot_paths(RunFolder(self._runs_folder, run_id).routing).values()
            loaded = [self._whole(path, load_snapshot) for path in paths]
            self._snapshots[run_id] = [snapshot for snapshot in loaded if snapshot is not None]
        return self._snapshots[run_id]

    def _curves_of(self, run_id: str) -> Curves:
        if run_id not in self._curves:
            path = RunFolder(self._runs_folder, run_id).history
            history = self._whole(path, History.load) if path.exists() else None
            self._curves[run_id] = {} if history is None else _by_curve(history)
        return self._curves[run_id]

    def _whole(self, path: Path, load: Callable[[Path], Value]) -> Value | None:
        try:
            return load(path)
        except SpectraError as error:
            self.damaged[path] = str(error).removeprefix(f"{path}: ")
            return None


def _by_curve(history: History) -> Curves:
    frame = history.frame()
    curves: Curves = {}
    columns = (frame[name].tolist() for name in ("split", "layer", "metric", "step", "value"))
    for split, layer, metric, step, value in zip(*columns, strict=True):
        curves.setdefault((split, layer, metric), {})[step] = value
    return curves
