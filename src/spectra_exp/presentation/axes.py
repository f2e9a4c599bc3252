"""What is around the marks of a panel: how far its axes reach, their ticks, floors, and arrows at what is cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from spectra_exp.presentation.panels import LinePanel, SpotPanel
from spectra_exp.presentation.style import GREY
from spectra_exp.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Letters of all tick labels of an axis that stand side by side.
TICK_CHARACTERS = 46


def set_limits(axes: Axes, panel: LinePanel) -> None:
    """Show the lines from where the panel begins, in the frame of their means."""
    shown = [
        (x, point)
        for line in panel.lines
        for x, point in zip(line.x, line.points, strict=True)
        if point and (panel.begin is None or x >= panel.begin)
    ]
    if not shown:
        return
    if panel.begin is not None:
        axes.set_xlim(panel.begin, max(x for x, _ in shown))
    if panel.y_scale == "linear":
        floors = [*(panel.floors if panel.begin is None else ()), *([0.0] if panel.zero else [])]
        axes.set_ylim(*frame([point for _, point in shown], floors))


def set_ticks(axes: Axes, panel: SpotPanel) -> None:
    """Named places on the axes, and the texts to the right of them."""
    if panel.x_ticks:
        axes.set_xticks([at for at, _ in panel.x_ticks], [text for _, text in panel.x_ticks])
        axes.set_xlim(panel.x_ticks[0][0] - 0.5, panel.x_ticks[-1][0] + 0.5)
        axes.grid(axis="x", visible=False)
        if sum(len(text) for _, text in panel.x_ticks) > TICK_CHARACTERS:
            axes.tick_params(axis="x", rotation=38)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    if panel.y_ticks:
        axes.set_yticks([at for at, _ in panel.y_ticks], [text for _, text in panel.y_ticks])
        axes.set_ylim(panel.y_ticks[-1][0] - 0.5, panel.y_ticks[0][0] + 0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.locator_params(axis="x", nbins=4)
    for place, text in panel.y_texts:
        axes.annotate(text, (1, place), (6, 0), axes.get_yaxis_transform(), textcoords="offset points", va="center")
    if panel.zero:
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--")


def frame(
    intervals: Sequence[Interval], floors: Sequence[float] = (), reach: float | None = None
) -> tuple[float, float]:
    """The limits of an axis: the means and floors, and of the intervals what lies within `reach` of the means.

    Without a reach it is the means' range. With two seeds an interval can be so long that the means would be one line.
    """
    means = [interval.mean for interval in intervals]
    bounds = [bound for interval in intervals for bound in (interval.low, interval.high) if bound is not None]
    reach = (means_range(intervals) if reach is None else reach) or math.inf
    low = min(max(min([*means, *bounds]), min(means) - reach), *means, *floors)
    high = max(min(max([*means, *bounds]), max(means) + reach), *means, *floors)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def means_range(intervals: Sequence[Interval]) -> float:
    """How far the means lie apart."""
    means = [interval.mean for interval in intervals]
    return max(means) - min(means)


def usual_reach(intervals: Sequence[Interval]) -> float:
    """The length of the usual interval, which shows most of them whole and cuts those of few seeds; 0 without any."""
    halves = sorted(interval.half_width for interval in intervals if interval.half_width is not None)
    return 2 * halves[len(halves) // 2] if halves else 0.0


def draw_arrows(axes: Axes, panel: SpotPanel) -> None:
    """An arrow where the frame cuts an interval."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for spot in panel.spots:
        ends = (
            (spot.x.low, left, "<", left, spot.y.mean),
            (spot.x.high, right, ">", right, spot.y.mean),
            (spot.y.low, bottom, "v", spot.x.mean, bottom),
            (spot.y.high, top, "^", spot.x.mean, top),
        )
        for bound, limit, marker, x, y in ends:
            if bound is not None and (bound < limit if marker in "<v" else bound > limit):
                axes.plot([x], [y], color=spot.mark.colour, marker=marker, markersize=3, clip_on=False)


def draw_floors(line: Callable[..., Any], strip: Callable[..., Any], floors: Sequence[float]) -> None:
    """Chance floors as one dotted line, or a strip where they differ; `line`, `strip`: what draws these."""
    if not floors:
        return
    if floors[-1] - floors[0] > 1e-9:
        strip(floors[0], floors[-1], color=GREY, alpha=0.15, linewidth=0)
    for floor in {floors[0], floors[-1]}:
        line(floor, color=GREY, linestyle=":", linewidth=0.9, gid="floor")


def say_empty(axes: Axes) -> None:
    """Say that there is nothing to draw."""
    axes.set(xticks=(), yticks=())
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=GREY)
