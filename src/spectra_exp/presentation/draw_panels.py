"""One painter for each kind of panel: it draws what the panel holds and computes nothing of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from spectra_exp.presentation.axes import (
    draw_arrows,
    draw_floors,
    frame,
    means_range,
    say_empty,
    set_limits,
    set_ticks,
    usual_reach,
)
from spectra_exp.presentation.panels import (
    BarPanel,
    CellPanel,
    HeatPanel,
    Line,
    LinePanel,
    Points,
    Spot,
    SpotPanel,
    StackPanel,
    TextPanel,
)
from spectra_exp.presentation.style import BAND_ALPHA, GREY, SEQUENTIAL, cell_scale, ramp, text_colour
from spectra_exp.presentation.text import interval_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Handles = dict[str, Any]
# How the ids of marks begin that say the rest on a page: to the keyboard too, to the pointer, in colours of their own.
REACHABLE, TIP, CELL = "reachable:", "tip:", "cell:"
# The id of a text on a cell.
ON_CELL = "on cell"
# Stand for the end of a line in an id, where XML has no other, and for the end of what one mark of many says.
LINE_END, MARK_END = "\u2028", "\u2029"
# Markers on a line over many steps.
MARKERS_PER_LINE = 6
# Of a spot's name, in points: its place from the spot, its height, and about the width of a letter.
NAME_OFFSET, NAME_POINTS, LETTER_POINTS = (6, 4), 6, 3.4
# Of more lines the bands are fainter.
FEW_LINES = 5


def draw_lines(axes: Axes, panel: LinePanel) -> Handles:
    """The handle of each line by its label; the lines with their bands, or bars where they are not joined."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    handles: Handles = {}
    alpha = BAND_ALPHA if len(panel.lines) <= FEW_LINES else BAND_ALPHA / 2
    for index, line in enumerate(panel.lines):
        handles[line.label] = _band(axes, line, index, alpha) if line.joined else _bars(axes, line)
        if line.tips:
            axes.plot(
                line.x, _means(line.points), color=line.mark.colour, linestyle="", marker="o", gid=said(TIP, *line.tips)
            )
    draw_floors(axes.axhline, axes.axhspan, panel.floors)
    if panel.zero:
        axes.axhline(0, color="black", linewidth=0.6)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_xscale(panel.x_scale)
    axes.set_yscale(panel.y_scale)
    if panel.y_scale == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel.ticks:
        axes.set_xticks([at for at, _ in panel.ticks], [text for _, text in panel.ticks])
        axes.minorticks_off()
        axes.margins(x=0.12 if panel.x_scale == "linear" else 0.05)
    set_limits(axes, panel)
    if not any(any(line.points) for line in panel.lines):
        say_empty(axes)
    return handles


def draw_stack(axes: Axes, panel: StackPanel) -> Handles:
    """No handle; the ranks as areas on top of each other, with bars for the intervals of their edges."""
    below = [0.0] * len(panel.x)
    for rank, (edge, shade) in enumerate(zip(panel.edges, ramp(len(panel.edges)), strict=True)):
        top = _means(edge)
        axes.fill_between(panel.x, below, top, color=shade, linewidth=0, gid=f"rank {rank}")
        below = top
    for rank, edge in enumerate(panel.edges[:-1]):
        axes.fill_between(panel.x, *_bounds(edge), color="white", alpha=0.25, linewidth=0, gid=f"edge {rank}")
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label, ylim=(0, 1))
    axes.margins(x=0)
    axes.grid(False)
    return {}


def draw_bars(axes: Axes, panel: BarPanel) -> Handles:
    """No handle; a bar with its interval for each rank, and the even share as a dashed line."""
    ranks = list(range(1, len(panel.bars) + 1))
    axes.bar(ranks, _means(panel.bars), color=panel.colour, width=0.8)
    axes.errorbar(ranks, _means(panel.bars), yerr=_arms(panel.bars), fmt="none", ecolor="black", elinewidth=0.7)
    if panel.reference is not None:
        axes.axhline(panel.reference, color="black", linestyle="--", linewidth=0.7)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
    axes.text(0.98, 0.95, panel.note, transform=axes.transAxes, ha="right", va="top", fontsize=6, bbox=behind)
    axes.grid(axis="x", visible=False)
    axes.locator_params(axis="x", integer=True)
    if not any(panel.bars):
        say_empty(axes)
    return {}


def draw_heat(axes: Axes, panel: HeatPanel) -> Handles:
    """No handle; the means as colours, each printed in its cell with half the interval below it where there is room."""
    import numpy as np
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    means = np.array([_means(row) for row in panel.cells], dtype=np.float64)
    norm = Normalize(*panel.limits)
    image = axes.imshow(means, cmap=SEQUENTIAL, norm=norm, aspect="auto")
    axes.figure.colorbar(image, ax=axes, pad=0.02, label=panel.scale_label)
    size = 5.5 if len(panel.x_ticks) < 8 else 4.9
    for y, row in enumerate(panel.cells if panel.printed else ()):
        for x, cell in enumerate(row):
            if cell is None:
                axes.text(x, y, "–", ha="center", va="center", color=GREY)
                continue
            dark = norm(cell.mean) < 0.6
            text = interval_text(cell).replace(" ± ", "\n±")
            axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")
    if panel.best:
        y, x = panel.best
        axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor="#FF3B30", linewidth=1.4))
    axes.set_xticks(range(len(panel.x_ticks)), panel.x_ticks)
    axes.set_yticks(range(len(panel.y_ticks)), panel.y_ticks)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.grid(False)
    return {}


def draw_cells(axes: Axes, panel: CellPanel) -> Handles:
    """No handle; a coloured box with its text for each cell, a grey one without a text where there is no value."""
    import numpy as np
    from matplotlib.colors import Normalize

    scale, norm = cell_scale(panel.even), Normalize(*panel.limits)
    values = [[math.nan if cell.value is None else cell.value for cell in row] for row in panel.cells]
    tips = said(CELL, *(cell.tip for row in panel.cells for cell in row))
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=scale, norm=norm, gid=tips, edgecolor=GREY, linewidth=0.2)
    for y, row in enumerate(panel.cells):
        for x, cell in enumerate(row):
            if cell.text and cell.value is not None:
                shade = text_colour(scale(float(norm(cell.value))))
                axes.text(x + 0.5, y + 0.5, cell.text, ha="center", va="center", color=shade, gid=ON_CELL)
    axes.set_xticks([x + 0.5 for x in range(len(panel.x_ticks))], panel.x_ticks)
    axes.set_yticks([y + 0.5 for y in range(len(panel.y_ticks))], panel.y_ticks)
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label, xlim=(0, len(panel.x_ticks)), ylim=(len(panel.y_ticks), 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return {}


def draw_spots(axes: Axes, panel: SpotPanel) -> Handles:
    """The handle of each spot by its label; hollow where not causal, named, ringed and joined on the front."""
    handles: Handles = {}
    for spot in panel.spots:
        face = spot.mark.colour if spot.solid else "white"
        style: dict[str, Any] = {"color": spot.mark.colour, "marker": spot.mark.marker, "markerfacecolor": face}
        arms: dict[str, Any] = {"xerr": _arms((spot.x,)), "yerr": _arms((spot.y,)), "ecolor": spot.mark.colour}
        axes.errorbar(spot.x.mean, spot.y.mean, fmt="none", elinewidth=0.7, alpha=0.6, **arms)
        if spot.tip:
            style |= {"gid": said(REACHABLE, spot.tip), "url": spot.link}
        style |= {"linestyle": "none", "markersize": 5, "label": spot.label}
        (handles[spot.label],) = axes.plot([spot.x.mean], [spot.y.mean], **style)
    for first, second in panel.joints:
        ends = panel.spots[first], panel.spots[second]
        axes.plot([s.x.mean for s in ends], [s.y.mean for s in ends], color=ends[0].mark.colour, alpha=0.6, zorder=1.6)
    front = [spot for spot in panel.spots if spot.on_front]
    if front:
        x, y = zip(*sorted((spot.x.mean, spot.y.mean) for spot in front), strict=True)
        ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none"}
        axes.plot(x, y, color="black", linewidth=0.8, linestyle="--", gid="front", zorder=1.5, **ring)
    draw_floors(axes.axvline, axes.axvspan, panel.floors)
    if panel.spots:
        xs, ys = [spot.x for spot in panel.spots], [spot.y for spot in panel.spots]
        reach = usual_reach if panel.reach == "intervals" else means_range
        axes.set_xlim(*frame(xs, [*panel.floors, *([0.0] if panel.zero else [])], reach(xs)))
        axes.set_ylim(*frame(ys, reach=reach(ys)))
    _name(axes, front)
    set_ticks(axes, panel)
    if panel.reach == "intervals":
        draw_arrows(axes, panel)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    return handles


def _name(axes: Axes, spots: Sequence[Spot]) -> None:
    """Write the names of spots beside them, from the left, where there is room; the legend has every name."""
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = axes.get_position().size * figure.get_size_inches() * 72
    taken: list[Bbox] = []
    for spot in sorted(spots, key=lambda spot: spot.x.mean):
        place = spot.x.mean, spot.y.mean
        across, up = axes.transAxes.inverted().transform(axes.transData.transform(place))
        left, low = across * width + NAME_OFFSET[0], up * height + NAME_OFFSET[1]
        box = Bbox.from_extents(left, low, left + LETTER_POINTS * len(spot.label), low + NAME_POINTS)
        if box.x1 <= width and box.y1 <= height and not any(box.overlaps(other) for other in taken):
            axes.annotate(spot.label, place, NAME_OFFSET, textcoords="offset points", fontsize=NAME_POINTS)
            taken.append(box)


def draw_text(axes: Axes, panel: TextPanel) -> None:
    """The cells as a table that fills the axes."""
    axes.axis("off")
    if not panel.rows:
        return
    from matplotlib.transforms import Bbox

    table = axes.table(
        cellText=panel.rows, colLabels=panel.headers, bbox=Bbox.unit(), cellLoc="center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(6)
    for cell in table.get_celld().values():
        cell.set_linewidth(0.3)
    table.auto_set_column_width(range(len(panel.headers)))


PAINTERS: dict[type, Callable[[Any, Any], Handles]] = {
    LinePanel: draw_lines,
    StackPanel: draw_stack,
    BarPanel: draw_bars,
    HeatPanel: draw_heat,
    SpotPanel: draw_spots,
    CellPanel: draw_cells,
}


def _band(axes: Axes, line: Line, index: int, alpha: float) -> Any:
    low, high = _bounds(line.points)
    axes.fill_between(line.x, low, high, color=line.mark.colour, alpha=alpha, linewidth=0, gid=f"band {line.label}")
    every = max(1, len(line.x) // MARKERS_PER_LINE)
    (handle,) = axes.plot(
        line.x,
        _means(line.points),
        color=line.mark.colour,
        linestyle=line.mark.dash,
        marker=line.mark.marker,
        markevery=(index % every, every),
        label=line.label,
    )
    return handle


def _bars(axes: Axes, line: Line) -> Any:
    means = _means(line.points)
    axes.errorbar(line.x, means, yerr=_arms(line.points), fmt="none", ecolor=line.mark.colour, elinewidth=0.9)
    (handle,) = axes.plot(
        line.x, means, color=line.mark.colour, linestyle="none", marker=line.mark.marker, markersize=4, label=line.label
    )
    return handle


def said(kind: str, *tips: str) -> str:
    """The id by which marks say their tips on a page."""
    return kind + MARK_END.join(tips).replace("\n", LINE_END)


def _means(points: Points) -> list[float]:
    return [math.nan if point is None else point.mean for point in points]


def _bounds(points: Points) -> tuple[list[float], list[float]]:
    none = (math.nan, math.nan)
    bounds = [none if p is None or p.low is None or p.high is None else (p.low, p.high) for p in points]
    return [low for low, _ in bounds], [high for _, high in bounds]


def _arms(points: Points) -> list[list[float]]:
    """How far error bars reach down and up; nothing for one seed."""
    halves = [(point.half_width or 0.0) if point else 0.0 for point in points]
    return [halves, halves]
