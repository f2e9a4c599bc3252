"""A page as a matplotlib figure: the grid of panels, the legend, the footnotes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spectra_exp.presentation.draw_panels import PAINTERS, draw_text
from spectra_exp.presentation.panels import BarPanel, LinePanel, Page, Panel, StackPanel
from spectra_exp.presentation.style import DOUBLE, FOOTNOTE_SIZE, GREY, RC

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Characters of a footnote, and of a legend, to the inch.
FOOTNOTE_CHARACTERS, LEGEND_CHARACTERS = 23.0, 19.0
# What a handle and the gaps beside it take of the legend, in characters.
HANDLE_CHARACTERS = 8
# A page with more legend entries than so many is `DOUBLE` wide, and higher by so many inches for each line of its
# legend beyond so many lines.
FEW_ENTRIES, LINE_HEIGHT, FEW_LINES = 8, 0.14, 3


@contextmanager
def our_style() -> Iterator[None]:
    """A block in which matplotlib draws in our style alone, whatever the reader's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def draw_page(page: Page) -> Figure:
    """The page as a figure; draw and save it within `our_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=page.size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    FigureCanvasAgg(figure)
    rows = -(-len(page.panels) // page.columns)
    heights = [*[1.0] * rows, *([0.5 + 0.1 * len(page.below.rows)] if page.below else [])]
    grid = figure.add_gridspec(len(heights), page.columns, height_ratios=heights)
    handles: dict[str, Artist] = {}
    for index, panel in enumerate(page.panels):
        axes = figure.add_subplot(grid[divmod(index, page.columns)])
        named = PAINTERS[type(panel)](axes, panel)
        _trim(axes, page, index, panel)
        if isinstance(panel, LinePanel) and panel.keyed:
            axes.legend(
                handles=list(named.values()),
                labels=list(named),
                ncols=2,
                loc="upper center",
                bbox_to_anchor=(0.5, -0.24),
            )
        else:
            handles |= {label: handle for label, handle in named.items() if label and label not in handles}
    if page.below:
        draw_text(figure.add_subplot(grid[rows, :]), page.below)
    _add_legend(figure, page, handles)
    return figure


def _trim(axes: Axes, page: Page, index: int, panel: Panel) -> None:
    """Leave out what the panel below or to the left repeats: labels, and the numbers of a scale that all share."""
    shared = isinstance(panel, (StackPanel, BarPanel))
    if isinstance(panel, BarPanel):
        axes.set_ylim(0, _bar_top(page))
    if index % page.columns and page.panels[index - 1].y_label == panel.y_label:
        axes.set_ylabel("")
    if shared and index % page.columns:
        axes.tick_params(labelleft=False)
    below = index + page.columns
    last_row = index // page.columns == (len(page.panels) - 1) // page.columns
    # Where no panel lies below, one of the last row says beside it what the axis is.
    if not last_row and page.panels[min(below, len(page.panels) - 1)].x_label == panel.x_label:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=not shared or below >= len(page.panels))


def _bar_top(page: Page) -> float:
    """The upper limit of every panel of bars: a long whisker is cut, the bars compare."""
    means = [bar.mean for panel in page.panels if isinstance(panel, BarPanel) for bar in panel.intervals]
    return 1.4 * max(means, default=1.0)


def _add_legend(figure: Figure, page: Page, handles: dict[str, Artist]) -> None:
    """The legend outside the panels with the footnotes above it, or the footnotes alone."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width, height = page.size
    entries: dict[str, Any] = handles | {name: Patch(facecolor=shade) for name, shade in page.key}
    if any(getattr(panel, "floors", ()) for panel in page.panels):
        entries["chance floor"] = Line2D([], [], color=GREY, linestyle=":", linewidth=1.0)
    if len(entries) > FEW_ENTRIES:
        width = max(width, DOUBLE)
    text = textwrap.fill(" ".join(page.footnotes), int(width * FOOTNOTE_CHARACTERS))
    if not entries:
        figure.supxlabel(text, x=0.01, ha="left", fontsize=FOOTNOTE_SIZE, color=GREY)
        return
    longest = max(len(name) for name in entries) + HANDLE_CHARACTERS
    columns = max(1, min(len(entries), int(width * LEGEND_CHARACTERS / longest)))
    if len(entries) > FEW_ENTRIES:
        figure.set_size_inches(width, height + max(0, -(-len(entries) // columns) - FEW_LINES) * LINE_HEIGHT)
    legend = figure.legend(
        handles=list(entries.values()),
        labels=list(entries),
        loc="outside lower center",
        ncols=columns,
        title=text,
        alignment="left",
        handlelength=3.2,
        columnspacing=1.2,
    )
    legend.get_title().set_color(GREY)
