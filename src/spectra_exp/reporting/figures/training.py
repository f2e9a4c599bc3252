"""Curves over training: losses, balance, entropy, gradient norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from spectra_exp.config.names import method_name
from spectra_exp.presentation.panels import Line, LinePanel, Mark, Page, Points, with_seeds
from spectra_exp.presentation.style import method_mark
from spectra_exp.reporting.figures.labels import Naming, arms, by_method, marked, metric_label, with_context
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.tables.spec import Choice
from spectra_exp.statistics.intervals import mean_interval

# Inches of each further row of panels.
TALL = 1.9
Marking = Callable[[Sequence[Row]], list[Mark]]


@dataclass(frozen=True)
class Curve:
    """A panel of a metric over training.

    `begin`: the share of the steps from which it is shown. `reference`: the row whose value at each seed is taken off.
    """

    metric: str
    split: str = "validation"
    begin: float = 0.0
    y_scale: Literal["linear", "log"] = "linear"
    reference: Choice = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """A page with a row of panels for each arm and a panel for each curve.

    `arms`: the factors whose values make arms. `size`: inches of a page with one arm; each further one adds `TALL`.
    """

    curves: tuple[Curve, ...]
    size: tuple[float, float]
    arms: tuple[str, ...] = ()
    naming: Naming = by_method

    def __call__(self, section: Section, rows: Sequence[Row]) -> Page:
        """The page of these rows."""
        split = arms(rows, self.arms)
        panels = tuple(
            curve_panel(curve, section, own, self.naming, method_marks, arm_title(own) if name else "")
            for name, own in split.items()
            for curve in self.curves
            if any(row.runs for row in own)
        )
        height = self.size[1] + TALL * (len(panels) // len(self.curves) - 1)
        page = Page(panels, len(self.curves), (self.size[0], height))
        remarks = [*lost(self.curves, section, rows)]
        for own in split.values():
            remarks += unpaired(self.curves, section, own)
        page = replace(page, absent=without_curves(self.curves, section, rows), remarks=tuple(dict.fromkeys(remarks)))
        return with_context(with_seeds(page), section, rows)


def method_marks(rows: Sequence[Row]) -> list[Mark]:
    """The mark of each row's method, by its place."""
    return [method_mark(row.method, index) for index, row in enumerate(rows)]


def arm_title(rows: Sequence[Row]) -> str:
    """What an arm's rows have in common: the method without its ablation."""
    key = {factor: value for factor, value in rows[0].key.items() if factor != "ablation"}
    return method_name(key)


def curve_panel(
    curve: Curve, section: Section, rows: Sequence[Row], naming: Naming, marking: Marking, title: str
) -> LinePanel:
    """The curve of each row that has it, with the chance floors of the metric."""
    lines = []
    reference = reference_of(curve, rows)
    for row, mark in zip(rows, marking(rows), strict=True):
        steps, points = over_seeds(shown_curves(curve, section, row, reference))
        if steps:
            lines.append(Line(marked(section, row, naming(row)), mark, steps, points))
    last = max((line.x[-1] for line in lines), default=0)
    begin = curve.begin * last if curve.begin else None
    if curve.reference:
        taken = naming(reference) if reference else "reference"
        y_label = f"{metric_label(curve.metric).partition(' (')[0]} − {taken}"
        return LinePanel(title, "Step", y_label, tuple(lines), begin=begin, zero=True)
    floors = floors_of(section, rows, curve.metric) if curve.split == "validation" else ()
    return LinePanel(
        title, "Step", metric_label(curve.metric), tuple(lines), y_scale=curve.y_scale, floors=floors, begin=begin
    )


def training_curves(section: Section, row: Row, split: str, metric: str) -> dict[int, dict[int, float]]:
    """The metric over all layers by seed and step, of the seeds that have any."""
    found = {seed: run.curve(split, metric) for seed, run in section.stored(row).items()}
    return {seed: curve for seed, curve in found.items() if curve}


def over_seeds(curves: Mapping[int, Mapping[int, float]]) -> tuple[tuple[int, ...], Points]:
    """The steps, and at each the interval of the mean over the seeds that have a value there."""
    steps = tuple(sorted({step for curve in curves.values() for step in curve}))
    return steps, tuple(mean_interval(curve.get(step) for curve in curves.values()) for step in steps)


def reference_of(curve: Curve, rows: Sequence[Row]) -> Row | None:
    """The row that the curve's values are taken off from, None for a curve without one."""
    return next((row for row in rows if curve.reference and row.matches(curve.reference)), None)


def unpaired(curves: Sequence[Curve], section: Section, rows: Sequence[Row]) -> list[str]:
    """Which rows have no difference from their reference because the runs may not be compared, and why."""
    found = []
    for curve in curves:
        reference = reference_of(curve, rows)
        for row in rows:
            if reference and (problem := section.pair_problem(row, reference)):
                found.append(f"No difference of {row.label} from {reference.label}: {problem}.")
    return found


def shown_curves(curve: Curve, section: Section, row: Row, reference: Row | None) -> dict[int, dict[int, float]]:
    """The row's curve by seed, less that of the reference at the same seed and step where the curve has one.

    Empty for the reference itself, and for runs that may not be compared with its.
    """
    own = training_curves(section, row, curve.split, curve.metric)
    if not curve.reference:
        return own
    if reference is None or row is reference or section.pair_problem(row, reference):
        return {}
    base = training_curves(section, reference, curve.split, curve.metric)
    return {
        seed: {step: value - base[seed][step] for step, value in own[seed].items() if step in base[seed]}
        for seed in sorted(own.keys() & base.keys())
    }


def floors_of(section: Section, rows: Sequence[Row], metric: str) -> tuple[float, ...]:
    """The distinct chance floors of the rows, ascending."""
    found = (section.floor(row, metric) for row in rows if row.runs)
    return tuple(sorted({value for value in found if value is not None}))


def without_curves(curves: Sequence[Curve], section: Section, rows: Sequence[Row]) -> dict[str, str]:
    """For each row with runs of which some curve is missing, which."""
    found = {}
    for row in rows:
        lacking = [c.metric for c in curves if row.runs and not training_curves(section, row, c.split, c.metric)]
        if lacking:
            found[row.label] = ", ".join(dict.fromkeys(lacking))
    return found


def lost(curves: Sequence[Curve], section: Section, rows: Sequence[Row]) -> tuple[str, ...]:
    """For each curve and seed with values that are not finite or out of range, how many were left out."""
    lines = []
    for row in rows:
        for split, metric in dict.fromkeys((curve.split, curve.metric) for curve in curves):
            for seed, run in section.stored(row).items():
                if number := len(run.curves.get((split, metric, "all"), ())) - len(run.curve(split, metric)):
                    what = f"values of {metric} not finite or out of range, left out"
                    lines.append(f"{row.label}, seed {seed}: {number} {what}")
    return tuple(lines)
