"""Charts of points: one figure over the steps of a setting, and two figures against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectra_exp.presentation.markup import Html, element
from spectra_exp.reporting.report.plot import (
    Scale,
    chart,
    dot,
    interval_ends,
    line,
    scale_over,
    text,
    tip,
    whisker,
    x_axis,
    y_axis,
)  # fmt: skip

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP = 52, 428, 26


@dataclass(frozen=True)
class Point:
    """A mean with its interval (None where there is none).

    `words` show under the pointer; `follows`: whether it goes on from the point before it, as 2 from 1.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    words: str
    full: bool = True
    x_low: float | None = None
    x_high: float | None = None
    front: bool = False
    link: str | None = None
    follows: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one colour."""

    name: str
    colour: str
    points: list[Point]


def steps_chart(categories: Sequence[str], series: Sequence[Series], axis: str, metric: str, label: str) -> Html:
    """Points with intervals over named steps (x is the step's place), joined where one follows another."""
    slant = max(map(len, categories)) * 5.6 > (RIGHT - LEFT) / len(categories)
    bottom = HEIGHT - (68 if slant else 40)
    scale = scale_over(interval_ends((p.y, p.low, p.high) for s in series for p in s.points), bottom, TOP)
    width = (RIGHT - LEFT) / len(categories)
    marks = [y_axis(scale, LEFT, RIGHT, metric)]
    for index, name in enumerate(categories):
        x = round(LEFT + width * (index + 0.5), 1)
        turned = f"rotate(-38 {x} {bottom + 13})" if slant else None
        marks.append(text(x, bottom + 13, name, "end" if slant else "middle", "tick", transform=turned))
    marks.append(text((LEFT + RIGHT) / 2, HEIGHT - 6, axis, "middle", "axis"))
    for place, one in enumerate(series):
        shift = (place - (len(series) - 1) / 2) * 8
        marks += _joined(one, lambda p, shift=shift: round(LEFT + width * (p.x + 0.5) + shift, 1), scale)
    return chart(WIDTH, HEIGHT, label, *marks)


def scatter_chart(series: Sequence[Series], x_title: str, y_title: str, label: str) -> Html:
    """Points with intervals both ways; those on the front are ringed and joined by steps."""
    bottom = 330 - 40
    points = [point for one in series for point in one.points]
    across = scale_over(interval_ends((p.x, p.x_low, p.x_high) for p in points), LEFT, RIGHT)
    up = scale_over(interval_ends((p.y, p.low, p.high) for p in points), bottom, TOP)
    marks = [x_axis(across, TOP, bottom, x_title), y_axis(up, LEFT, RIGHT, y_title)]
    front = sorted((p.x, p.y) for p in points if p.front)
    if front:
        corners = [f"M{across(front[0][0])} {up(front[0][1])}"]
        corners += [f"H{across(x)}V{up(y)}" for x, y in front[1:]]
        marks.append(element("path", d="".join(corners), class_="front"))
    drawn = [(one, point) for one in series for point in one.points]
    marks += [_whiskers(one.colour, point, across, up) for one, point in drawn]
    for one, point in drawn:
        x, y = across(point.x), up(point.y)
        ring = element("circle", cx=x, cy=y, r=8, class_="ring") if point.front else None
        mark = tip([ring, dot(x, y, one.colour, point.full, 5.5)], point.words, reachable=point.link is None)
        marks.append(element("a", mark, href=point.link, aria_label=point.words) if point.link else mark)
    return chart(WIDTH, 330, label, *marks, class_="large")


def _joined(series: Series, place: Callable[[Point], float], scale: Scale) -> list[Html]:
    marks = []
    for before, after in zip(series.points, series.points[1:], strict=False):
        if after.follows and after.x - before.x == 1:
            ends = place(before), scale(before.y), place(after), scale(after.y)
            marks.append(line(*ends, "joint", style=f"stroke:{series.colour}"))
    for point in series.points:
        x = place(point)
        bar = _upright(series.colour, x, point, scale)
        marks.append(tip([bar, dot(x, scale(point.y), series.colour, point.full)], point.words, reachable=True))
    return marks


def _upright(colour: str, x: float, point: Point, scale: Scale) -> Html | None:
    if point.low is None or point.high is None:
        return None
    return whisker(scale, point.low, point.high, x, True, colour)


def _whiskers(colour: str, point: Point, across: Scale, up: Scale) -> Html:
    flat = None
    if point.x_low is not None and point.x_high is not None:
        flat = whisker(across, point.x_low, point.x_high, up(point.y), False, colour)
    return element("g", _upright(colour, across(point.x), point, up), flat, class_="faint")
