"""What the page of a run shows of its files."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from spectra_exp.measure.others import figure
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.stored import StoredRun

LOG_BYTES = 64 * 1024  # of a longer log the end is shown

Curves = dict[tuple[str, str, str], list[tuple[int, float]]]


@dataclass(frozen=True)
class RunFiles:
    """A run's files.

    `curves`: (step, value) by (split, layer, metric); `snapshots`: by step; `problems`: what could not be read.
    A file that is not there is empty and no problem: a run that goes on has no summary yet.
    """

    run_id: str
    summary: dict[str, Any] | None
    config: str
    environment: str
    log: str
    curves: Curves
    snapshots: dict[int, RoutingSnapshot]
    problems: list[str] = field(default_factory=list)


def run_files(stored: StoredRun) -> RunFiles:
    """The files of a run; nothing in its folder makes this fail."""
    folder = stored.folder
    texts = [stored.text(folder.config), stored.text(folder.environment), stored.text(folder.log, LOG_BYTES)]
    problems = [f"{path.relative_to(stored.path)}: {problem}" for path, problem in stored.examine().items()]
    return RunFiles(stored.run_id, stored.summary, *texts, _curves(stored), stored.snapshots, problems)


def _curves(stored: StoredRun) -> Curves:
    """The values that can be, since no other has a place in a picture."""
    curves: Curves = defaultdict(list)
    if stored.history is None:
        return curves
    columns = (stored.history[name].tolist() for name in ("step", "split", "layer", "metric", "value"))
    for step, split, layer, metric, value in zip(*columns, strict=True):
        if figure(metric).range.holds(value, stored.sizes):
            curves[split, layer, metric].append((step, value))
    return curves
