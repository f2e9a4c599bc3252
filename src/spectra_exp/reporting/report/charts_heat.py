"""Heat maps: cells coloured by their figure, which is printed in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectra_exp.presentation.colours import Rgb, css, diverging, ramp, text_on
from spectra_exp.presentation.markup import Html, element
from spectra_exp.reporting.report.plot import chart, text, tip

LETTER = 6.1


@dataclass(frozen=True)
class Cell:
    """`value` decides the colour, `shown` stands in the cell; a cell without a value is hatched."""

    value: float | None
    shown: str
    words: str


def heat_chart(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], label: str,
    colours: Callable[[float], Rgb], row_axis: str = "", column_axis: str = "", size: tuple[float, float] = (62, 26),
) -> Html:  # fmt: skip
    """The map, [row][column]; `size`: width and height of a cell."""
    wide, high = size
    left = max([len(name) for name in rows] + [len(row_axis)]) * LETTER + 10
    top = 34 if column_axis else 20
    marks = [text(left + wide * len(columns) / 2, 12, column_axis, "middle", "axis")] if column_axis else []
    if row_axis:
        marks.append(text(left - 6, top - 6, row_axis, "end", "axis"))
    for x, name in enumerate(columns):
        marks.append(text(left + wide * (x + 0.5), top - 6, name, "middle", "tick"))
    for y, name in enumerate(rows):
        marks.append(text(left - 6, top + high * (y + 0.5) + 4, name, "end", "tick"))
        for x, cell in enumerate(cells[y]):
            marks.append(_cell(cell, left + wide * x, top + high * y, size, colours))
    return chart(left + wide * len(columns) + 2, top + high * len(rows) + 4, label, *marks, class_="heat")


def sequential(values: Sequence[float]) -> Callable[[float], Rgb]:
    """Colours from the least of the values, light, to the largest, dark."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return lambda value: ramp((value - low) / (high - low) if high > low else 0.5)


def around(centre: float, reach: float) -> Callable[[float], Rgb]:
    """Blue below `centre`, orange above it."""
    return lambda value: diverging(value, centre, reach)


def _cell(cell: Cell, x: float, y: float, size: tuple[float, float], colours: Callable[[float], Rgb]) -> Html:
    box = {"x": round(x + 0.5, 1), "y": round(y + 0.5, 1), "width": size[0] - 1, "height": size[1] - 1}
    if cell.value is None:
        return tip(element("rect", **box, class_="hatch"), cell.words)
    fill = colours(cell.value)
    middle = round(x + size[0] / 2, 1), round(y + size[1] / 2 + 3.5, 1)
    shown = text(*middle, cell.shown, "middle", "cell", style=f"fill:{text_on(fill)}")
    return tip([element("rect", **box, style=f"fill:{css(fill)}"), shown if cell.shown else None], cell.words)
