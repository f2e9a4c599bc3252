"""How the load falls on the experts: over training, and per layer at its end.

Letters: T snapshots, L routed layers, E experts, by rank. An expert's number means nothing across seeds and layers,
so experts are ranked by their share at the end of training, in each layer of each run by itself.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectra_exp.presentation.colours import colour
from spectra_exp.presentation.panels import BarPanel, Page, Points, StackPanel, with_seeds
from spectra_exp.presentation.style import DOUBLE, ramp
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.collect import TRAINING_RULE
from spectra_exp.reporting.figures.labels import Naming, by_method, marked, with_context
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.intervals import Interval, mean_interval

RANKED = "Experts ranked by their share at the end of training, in each layer and run."
INFERENCE_RULE = "Counts under the run's inference rule, after selection."
MOST_LAYERS = 6
# Characters of a line of a name that fit above a panel, and along the height of a row of panels.
ABOVE_A_PANEL = 18
BESIDE_A_ROW = 14


@dataclass(frozen=True)
class Usage:
    """The shares of one run's experts by rank. `steps`: T; `shares_TLE`: each sums to 1 over E, or to 0."""

    steps: tuple[int, ...]
    shares_TLE: np.ndarray


def usage(run: StoredRun) -> Usage | None:
    """The run's usage over its snapshots, None without one."""
    snapshots = list(run.snapshots.values())
    if not snapshots:
        return None
    counts_TLE = np.stack([snapshot.counts_LE for snapshot in snapshots]).astype(np.float64)
    shares_TLE = counts_TLE / np.maximum(counts_TLE.sum(axis=2, keepdims=True), 1)
    order_LE = np.argsort(-shares_TLE[-1], axis=1, kind="stable")
    ranked = np.take_along_axis(shares_TLE, np.broadcast_to(order_LE, shares_TLE.shape), axis=2)
    return Usage(tuple(snapshot.step for snapshot in snapshots), ranked)


def usages(section: Section, row: Row) -> dict[int, Usage]:
    """The usage of each seed that has snapshots."""
    found = {seed: usage(run) for seed, run in section.stored(row).items()}
    return {seed: value for seed, value in found.items() if value is not None}


def stack_edges(by_seed: Mapping[int, Usage]) -> tuple[tuple[int, ...], tuple[Points, ...]]:
    """The steps, and for each rank the interval over seeds of the cumulative share, a mean over layers."""
    curves = {
        seed: dict(zip(found.steps, np.cumsum(found.shares_TLE.mean(axis=1), axis=1), strict=True))
        for seed, found in by_seed.items()
    }
    steps = tuple(sorted({step for curve in curves.values() for step in curve}))
    experts = min(found.shares_TLE.shape[2] for found in by_seed.values())
    edges = [
        tuple(mean_interval(curve[step][rank] for curve in curves.values() if step in curve) for step in steps)
        for rank in range(experts)
    ]
    return steps, tuple(edges)


def final_shares(by_seed: Mapping[int, Usage], layer: int | None = None) -> Points:
    """The interval over seeds of each rank's share at the end: of one layer, or the mean over layers; () of no seed."""
    ends = [found.shares_TLE[-1] for found in by_seed.values()]
    shares = [end.mean(axis=0) if layer is None else end[layer] for end in ends]
    return tuple(mean_interval(values) for values in zip(*shares, strict=True))


@dataclass(frozen=True)
class StackedUsage:
    """A page of stacked shares over training, a panel for each row."""

    columns: int = 4
    naming: Naming = by_method

    def __call__(self, section: Section, rows: Sequence[Row]) -> Page:
        """The page of these rows."""
        panels, experts = [], 1
        for row in rows:
            if by_seed := usages(section, row):
                steps, edges = stack_edges(by_seed)
                experts = max(experts, len(edges))
                title = textwrap.fill(marked(section, row, self.naming(row)), ABOVE_A_PANEL)
                panels.append(StackPanel(title, "Step", "Share of assignments", steps, edges))
        size = DOUBLE, 0.8 + 1.3 * -(-len(panels) // self.columns)
        notes = (f"{RANKED} Mean over layers. {INFERENCE_RULE}",)
        absent = no_snapshots(section, rows)
        page = Page(tuple(panels), self.columns, size, notes, absent=absent, key=rank_key(experts))
        return with_context(with_seeds(page, "bright bands at the edges"), section, rows)


@dataclass(frozen=True)
class LayerUsage:
    """A page of histograms, a row of panels for each row and a column for each layer."""

    naming: Naming = by_method

    def __call__(self, section: Section, rows: Sequence[Row]) -> Page:
        """The page of these rows; of many layers, evenly spread ones."""
        found = {index: value for index, row in enumerate(rows) if (value := usages(section, row))}
        depth = max((u.shares_TLE.shape[1] for by_seed in found.values() for u in by_seed.values()), default=0)
        layers = shown_layers(depth)
        panels = []
        for index, by_seed in found.items():
            row = rows[index]
            least = min(u.shares_TLE.shape[1] for u in by_seed.values())
            for layer in layers:
                bars = final_shares(by_seed, layer) if layer < least else ()
                title = f"Layer {layer}" if index == min(found) else ""
                name = textwrap.fill(marked(section, row, self.naming(row)) if layer == layers[0] else "", BESIDE_A_ROW)
                even, note = 1 / len(bars) if bars else None, rule_note(section, row, layer)
                panels.append(BarPanel(title, "Expert, by rank", name, bars, colour(row.method), even, note))
        some = (f"{len(layers)} of {depth} layers shown.",) if len(layers) < depth else ()
        rules = "CV: load CV of the layer under the inference rule → under the training rule, where that was measured."
        notes = (f"Share of assignments. {RANKED} {INFERENCE_RULE} Dashed: even share. {rules}", *some)
        size = DOUBLE, 0.9 + 0.78 * len(found)
        page = Page(tuple(panels), max(1, len(layers)), size, notes, absent=no_snapshots(section, rows))
        return with_context(with_seeds(page, "bars"), section, rows)


def shown_layers(depth: int) -> list[int]:
    """The layers to draw: all, or of many some that are evenly spread."""
    if depth <= MOST_LAYERS:
        return list(range(depth))
    return [round(i * (depth - 1) / (MOST_LAYERS - 1)) for i in range(MOST_LAYERS)]


def rule_note(section: Section, row: Row, layer: int) -> str:
    """The layer's load CV at the end of training under the inference rule, and under the training rule if measured."""
    texts = []
    for split in ("validation", f"validation{TRAINING_RULE}"):
        interval = _layer_cv(section, row, split, layer)
        texts += [number_text(interval.mean, 2)] if interval else []
    return f"CV {' → '.join(texts)}" if texts else ""


def _layer_cv(section: Section, row: Row, split: str, layer: int) -> Interval | None:
    curves = []
    for run in section.stored(row).values():
        layers = [name for s, metric, name in run.curves if (s, metric) == (split, "load_cv") and name != "all"]
        if layer < len(layers):
            curves.append(run.curve(split, "load_cv", sorted(layers, key=int)[layer]))
    return mean_interval(curve[max(curve)] for curve in curves if curve)


def no_snapshots(section: Section, rows: Sequence[Row]) -> dict[str, str]:
    """The rows with runs of which no snapshot could be read."""
    return {row.label: "routing snapshots" for row in rows if row.runs and not usages(section, row)}


def rank_key(experts: int) -> tuple[tuple[str, str], ...]:
    """Name and colour of the first, middle and last rank."""
    shades = ramp(experts)
    names = {0: "most used expert", experts // 2: f"rank {experts // 2 + 1}", experts - 1: "least used expert"}
    return tuple((name, shades[rank]) for rank, name in names.items())
