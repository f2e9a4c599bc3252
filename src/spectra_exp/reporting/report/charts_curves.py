"""Curves over the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectra_exp.presentation.markup import Html, element
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.report.plot import chart, dot, scale_over, text, tip, x_axis, y_axis

WIDTH, LEFT, RIGHT, TOP, DEEP = 440, 52, 428, 26, 190
SHORT = 16  # up to so many points each has a mark of its own
PER_LINE = 62  # letters that fit in a line of the legend


@dataclass(frozen=True)
class Curve:
    """(step, value) by step."""

    name: str
    colour: str
    points: list[tuple[int, float]]


def curves_chart(curves: Sequence[Curve], title: str, label: str) -> Html:
    """The curves over steps with their legend; few points are marked, and say their figures."""
    steps = [step for curve in curves for step, _ in curve.points]
    across = scale_over(steps, LEFT, RIGHT)
    up = scale_over([value for curve in curves for _, value in curve.points], DEEP, TOP)
    marks = [x_axis(across, TOP, DEEP, "step"), y_axis(up, LEFT, RIGHT, title)]
    for curve in curves:
        path = "M" + "L".join(f"{across(step)} {up(value)}" for step, value in curve.points)
        marks.append(element("path", d=path, class_="curve", style=f"stroke:{curve.colour}"))
        if len(curve.points) <= SHORT:
            marks += [
                tip(dot(across(x), up(y), curve.colour, size=3), f"{curve.name}\nstep {x}: {number_text(y)}")
                for x, y in curve.points
            ]
    legend, height = _legend([(curve.name, curve.colour) for curve in curves], DEEP + 48)
    return chart(WIDTH, height, label, *marks, *legend)


def _legend(entries: Sequence[tuple[str, str]], y: float) -> tuple[list[Html], float]:
    """The names with their colours, in as many lines as they need, and where they end."""
    marks, used = [], 0
    for name, colour in entries:
        if used and used + len(name) > PER_LINE:
            y, used = y + 16, 0
        x = LEFT + used * 6.0
        swatch = element("rect", x=x, y=y - 8, width=10, height=8, style=f"fill:{colour}")
        marks += [swatch, text(x + 14, y, name, class_="key")]
        used += len(name) + 5
    return marks, y + 8
