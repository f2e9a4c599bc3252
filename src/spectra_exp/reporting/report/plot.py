"""What charts are drawn with: scales, ticks, marks and the frame. Units are those of the view box."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from spectra_exp.presentation.markup import Html, element, join


@dataclass(frozen=True)
class Scale:
    """A linear map of the values `low`..`high` to the places `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values within the scale, about `wanted` of them."""
        raw = (self.high - self.low) / wanted
        power = 10 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def scale_over(values: Iterable[float], start: float, end: float, include: Iterable[float] = ()) -> Scale:
    """A scale over all values with a little room; equal values get room of their own size."""
    known = [*values, *include]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = (high - low) * 0.06
    # A spread of rounding noise would leave no room for ticks.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def interval_ends(intervals: Iterable[tuple[float, float | None, float | None]]) -> list[float]:
    """What a scale over (mean, low, high) must hold: the means, and of each interval so much as most intervals need.

    One interval of two seeds, twelve times as wide as the rest, would else leave no room for any other difference.
    """
    known = list(intervals)
    reaches = sorted(max(mean - low, high - mean) for mean, low, high in known if low is not None and high is not None)
    reach = 2 * reaches[len(reaches) // 2] if reaches else 0.0
    ends = [mean for mean, _, _ in known]
    for mean, low, high in known:
        if low is not None and high is not None:
            ends += [max(low, mean - reach), min(high, mean + reach)]
    return ends


def tick_text(value: float, scale: Scale) -> str:
    """A tick's number, no longer than its step needs."""
    ticks = scale.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else scale.high - scale.low
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:g}".replace("-", "−")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−")


def chart(width: float, height: float, label: str, *content: object, class_: str = "") -> Html:
    """The picture; `label` says in words what it shows."""
    return element(
        "svg", *content, viewbox=f"0 0 {width:g} {height:g}", role="group", aria_label=label,
        class_=f"chart {class_}".strip(), style=f"--w:{width:g}",
    )  # fmt: skip


def text(x: float, y: float, content: object, anchor: str = "start", class_: str | None = None, **more: object) -> Html:
    """Text on the baseline `y`."""
    return element("text", content, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_, **more)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, **more: object) -> Html:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **more)


def whisker(scale: Scale, low: float, high: float, across: float, upright: bool, colour: str) -> Html:
    """The interval `low`..`high` at the place `across`; an end beyond the scale is cut there and has an arrow."""
    ends = scale(max(low, scale.low)), scale(min(high, scale.high))
    marks = [line(*((across, ends[0], across, ends[1]) if upright else (ends[0], across, ends[1], across)), "whisker",
                  style=f"stroke:{colour}")]  # fmt: skip
    toward = 1 if scale.end > scale.start else -1
    for is_cut, place, way in ((low < scale.low, ends[0], -toward), (high > scale.high, ends[1], toward)):
        if is_cut:
            points = [(place - 5 * way, across - 4), (place, across), (place - 5 * way, across + 4)]
            path = "L".join(f"{y} {x}" if upright else f"{x} {y}" for x, y in points)
            marks.append(element("path", d=f"M{path}", class_="whisker arrow", style=f"stroke:{colour}"))
    return join(marks)


def x_axis(scale: Scale, top: float, bottom: float, title: str, wanted: int = 5) -> Html:
    """Grid lines from `top` to `bottom`, numbers and title below."""
    parts = []
    for value in scale.ticks(wanted):
        x = scale(value)
        parts += [line(x, top, x, bottom, "grid"), text(x, bottom + 13, tick_text(value, scale), "middle", "tick")]
    middle = (scale.start + scale.end) / 2
    return join([*parts, text(middle, bottom + 28, title, "middle", "axis")])


def y_axis(scale: Scale, left: float, right: float, title: str) -> Html:
    """Grid lines from `left` to `right`, numbers before them, the title above."""
    parts = []
    for value in scale.ticks():
        y = scale(value)
        parts += [line(left, y, right, y, "grid"), text(left - 5, y + 3.5, tick_text(value, scale), "end", "tick")]
    return join([*parts, text(4, min(scale.start, scale.end) - 9, title, "start", "axis")])


def dot(x: float, y: float, colour: str, full: bool = True, size: float = 4.5) -> Html:
    """A round mark; a hollow one where `full` is False."""
    if full:
        return element("circle", cx=x, cy=y, r=size, class_="dot", style=f"fill:{colour}")
    return element("circle", cx=x, cy=y, r=size - 0.8, class_="hollow", style=f"stroke:{colour}")


def tip(content: object, words: str, reachable: bool = False) -> Html:
    """A group of marks with words that show under the pointer, and under the keyboard's focus if `reachable`."""
    return element(
        "g", element("title", words), content, class_="mark", tabindex=0 if reachable else None,
        role="img" if reachable else None, aria_label=words if reachable else None,
    )  # fmt: skip
