"""The rows of the temperature study: constants by value, schedules, and how each is called and marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from spectra_exp.presentation.panels import Line, LinePanel, Mark, Points
from spectra_exp.presentation.style import ordered_marks, plain_mark
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.statistics.intervals import Interval

FACTOR = "temperature"
SCHEDULES = ("linear", "cosine", "exponential", "step")
NAMES = {name: name.capitalize() for name in SCHEDULES} | {"best_long": "Best constant, twice the steps"}


def constant(row: Row) -> float | None:
    """The row's constant temperature; None for a schedule, and where finished runs decide it."""
    return row.setting("temperature.value") if row.setting("temperature.schedule") == "constant" else None


def constants(rows: Sequence[Row]) -> list[Row]:
    """The rows of a constant temperature, coldest first."""
    return sorted((row for row in rows if constant(row) is not None), key=lambda row: constant(row) or 0.0)


def schedules(rows: Sequence[Row]) -> list[Row]:
    """The rows of a schedule, in the order of SCHEDULES."""
    found = {row.key.get(FACTOR): row for row in rows}
    return [found[name] for name in SCHEDULES if name in found]


def by_temperature(row: Row) -> str:
    """The row as a temperature."""
    value = constant(row)
    option = row.key.get(FACTOR, "")
    return NAMES.get(option, option.replace("_", " ")) if value is None else f"T = {value:g}"


def best_constant(section: Section, rows: Sequence[Row]) -> Row | None:
    """The constant with the lowest mean validation loss among those that may be ranked, None without any."""
    own = constants(rows)
    means = zip(section.ranked_means(own, ["val_loss"]), own, strict=True)
    return min(((mean, row) for (mean,), row in means if mean is not None), key=itemgetter(0), default=(0.0, None))[1]


def temperature_marks(rows: Sequence[Row]) -> list[Mark]:
    """Constants from dark to light as they grow hotter; schedules in plain colours."""
    ordered = constants(rows)
    warm = {id(row): mark for row, mark in zip(ordered, ordered_marks(len(ordered)), strict=True)}
    places = {name: place for place, name in enumerate(SCHEDULES)}
    return [warm.get(id(row)) or plain_mark(places.get(row.key.get(FACTOR, ""), len(places))) for row in rows]


def over_temperature(
    rows: Sequence[Row],
    series: Mapping[str, Callable[[Row], Interval | None]],
    y_label: str,
    floors: tuple[float, ...] = (),
) -> LinePanel:
    """The panel of each series over the constant temperatures, on a log scale; a legend of its own for several."""
    ordered = constants(rows)
    x = tuple(constant(row) or 0.0 for row in ordered)
    lines = []
    for index, (label, value) in enumerate(series.items()):
        points: Points = tuple(value(row) for row in ordered)
        if any(points):
            lines.append(Line(label, plain_mark(index), x, points))
    ticks = tuple((value, f"{value:g}") for value in x)
    return LinePanel(
        "", "Temperature", y_label, tuple(lines), x_scale="log", ticks=ticks, floors=floors, keyed=len(series) > 1
    )
