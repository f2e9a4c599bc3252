"""A chart with a line for each row: its name, its interval on a common scale, its figure in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectra_exp.presentation.markup import Html
from spectra_exp.reporting.report.plot import chart, dot, interval_ends, line, scale_over, text, tip, whisker, x_axis

ROW, LETTER = 21, 6.6
PLOT = 170


@dataclass(frozen=True)
class IntervalRow:
    """`value` with its interval, None where there is none; `shown`: the figure in words; `full`: causal throughout."""

    name: str
    colour: str
    value: float | None
    low: float | None
    high: float | None
    shown: str
    words: str
    full: bool = True


def rows_chart(rows: Sequence[IntervalRow], axis: str, label: str, zero: bool = False) -> Html:
    """The chart; with `zero` a line stands at 0, which the scale then holds."""
    left = max(len(row.name) for row in rows) * LETTER + 12
    right = left + PLOT
    width = right + 10 + max(len(row.shown) for row in rows) * LETTER
    bottom = 8 + ROW * len(rows)
    ends = interval_ends((row.value, row.low, row.high) for row in rows if row.value is not None)
    scale = scale_over(ends, left, right, [0.0] if zero else [])
    marks = [x_axis(scale, 8, bottom, axis, wanted=4)]
    if zero:
        marks.append(line(scale(0.0), 8, scale(0.0), bottom, "zero"))
    for index, row in enumerate(rows):
        y = 8 + ROW * index + ROW / 2
        marks.append(text(left - 10, y + 4, row.name, "end", "name"))
        if row.value is None:
            marks.append(text((left + right) / 2, y + 4, row.shown, "middle", "empty"))
            continue
        bar = None
        if row.low is not None and row.high is not None:
            bar = whisker(scale, row.low, row.high, y, False, row.colour)
        figure = text(right + 8, y + 4, row.shown, class_="figure")
        marks.append(tip([bar, dot(scale(row.value), y, row.colour, row.full), figure], row.words))
    return chart(width, bottom + 34, label, *marks)
