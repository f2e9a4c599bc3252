"""How figures look: sizes, fonts, colours, line styles and markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectra_exp.presentation.colours import BLACK_ABOVE, colour, luminance
from spectra_exp.presentation.panels import Mark

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

COLUMN, DOUBLE = 3.35, 6.9  # inches: a column of a two-column page, and both
DPI = 240
BAND_ALPHA = 0.18
FOOTNOTE_SIZE = 6.0
GREY = "#666666"
SEQUENTIAL = "viridis"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": FOOTNOTE_SIZE,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Text stays text in the PDF, as journals ask.
    "pdf.fonttype": 42,
}

DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
# For what is no method (metrics, schedules): Okabe and Ito's colours.
PLAIN = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def mark_at(index: int, shade: str) -> Mark:
    """The mark of that colour with the line style and marker of a place among the rows."""
    return Mark(shade, DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)])


def method_mark(label: str, index: int) -> Mark:
    """The mark of a method: its one colour, and the line style and marker of its place among the rows."""
    return mark_at(index, colour(label))


def plain_mark(index: int) -> Mark:
    """The mark of a series that is no method."""
    return mark_at(index, PLAIN[index % len(PLAIN)])


def ordered_marks(count: int) -> list[Mark]:
    """Marks for settings with an order, such as temperatures: from dark to light."""
    return [mark_at(i, shade) for i, shade in enumerate(ramp(count, 0.88))]


def ramp(count: int, last: float = 1.0) -> list[str]:
    """So many colours of the sequential scale, evenly spread from its begin to the place `last` in 0..1, as hex."""
    import matplotlib
    from matplotlib.colors import to_hex

    scale = matplotlib.colormaps[SEQUENTIAL]
    return [to_hex(scale(last * i / max(1, count - 1))) for i in range(count)]


def cell_scale(even: float | None) -> Colormap:
    """The colours of a page's heat map: light to dark, or blue below and orange above where it has an even value."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = ("#ECF4FA", "#084078") if even is None else ("#0072B2", "#F5F5F2", "#D55E00")
    return LinearSegmentedColormap.from_list("cells", ends).with_extremes(bad="#DDDDDD")


def text_colour(face: Sequence[float]) -> str:
    """Black or white, whichever is read more easily on a colour of parts in 0..1."""
    return "black" if luminance(face) > BLACK_ABOVE else "white"
