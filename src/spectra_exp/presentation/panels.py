"""What a figure shows, before anything is drawn: panels of means over seeds with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from spectra_exp.statistics.intervals import Interval

Points = tuple[Interval | None, ...]
# The widest heat map whose cells have room for their numbers.
MOST_PRINTED = 10


@dataclass(frozen=True)
class Mark:
    """How a series looks: colour, and for readers who see none, line style and marker."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]] = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Line:
    """A series: at each `x` the mean over seeds, None where no seed has a finite value.

    `joined`: whether the points lie on a scale, so that a line between them means something. `tips`: what each point
    says under the pointer on a page, none in a figure.
    """

    label: str
    mark: Mark
    x: tuple[float, ...]
    points: Points
    joined: bool = True
    tips: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinePanel:
    """Lines over a common axis.

    `ticks`: position and text of each tick, none for a scale of numbers. `floors`: chance floors of what is drawn, as
    one dotted line, or a strip where they differ. `begin`: where the visible part of x begins. `keyed`: whether it has
    a legend of its own. `zero`: whether zero is marked, as for differences.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    ticks: tuple[tuple[float, str], ...] = ()
    floors: tuple[float, ...] = ()
    begin: float | None = None
    keyed: bool = False
    zero: bool = False

    @property
    def intervals(self) -> list[Interval]:
        """Every interval drawn."""
        return [point for line in self.lines for point in line.points if point]


@dataclass(frozen=True)
class StackPanel:
    """Shares stacked over steps: `edges[r][t]` is the cumulative share of the ranks up to r."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    edges: tuple[Points, ...]

    @property
    def intervals(self) -> list[Interval]:
        """Every interval drawn."""
        return [point for edge in self.edges for point in edge if point]


@dataclass(frozen=True)
class BarPanel:
    """A bar for each rank of the experts. `reference`: the even share. `note`: what is printed inside."""

    title: str
    x_label: str
    y_label: str
    bars: Points
    colour: str
    reference: float | None
    note: str = ""

    @property
    def intervals(self) -> list[Interval]:
        """Every interval drawn."""
        return [bar for bar in self.bars if bar]


@dataclass(frozen=True)
class HeatPanel:
    """Cells by row and column, `cells[y][x]`. `limits`: of the colours. `best`: (y, x) of the best mean, if any."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[str, ...]
    y_ticks: tuple[str, ...]
    cells: tuple[Points, ...]
    limits: tuple[float, float]
    scale_label: str
    best: tuple[int, int] | None = None

    @property
    def printed(self) -> bool:
        """Whether the cells are wide enough for their numbers."""
        return len(self.x_ticks) <= MOST_PRINTED

    @property
    def intervals(self) -> list[Interval]:
        """Every interval drawn."""
        return [cell for row in self.cells for cell in row if cell]


@dataclass(frozen=True)
class HeatCell:
    """`value` decides the colour, `text` stands in it, `tip` is said under the pointer. Empty without a value."""

    value: float | None
    text: str
    tip: str


@dataclass(frozen=True)
class CellPanel:
    """A heat map for a page, `cells[y][x]`. `limits`: of the colours, which part at `even` if there is one.

    `size`: width and height of a cell, in points.
    """

    x_label: str
    y_label: str
    x_ticks: tuple[str, ...]
    y_ticks: tuple[str, ...]
    cells: tuple[tuple[HeatCell, ...], ...]
    limits: tuple[float, float]
    even: float | None = None
    size: tuple[float, float] = (40.0, 17.0)


@dataclass(frozen=True)
class Spot:
    """A method as a point in two metrics. `on_front`: no causal one betters it. `solid`: whether it is causal.

    `tip`: what it says under the pointer on a page; `link`: where a click on it leads.
    """

    label: str
    mark: Mark
    x: Interval
    y: Interval
    on_front: bool
    solid: bool
    tip: str = ""
    link: str | None = None


@dataclass(frozen=True)
class SpotPanel:
    """Spots, the front among them joined. `floors`: chance floors of x.

    `x_ticks`, `y_ticks`: position and text of each tick, none for a scale of numbers. `y_texts`: texts on the right, by
    position. `joints`: pairs of spots, by place, that a line joins. `zero`: whether x = 0 is marked, for differences.
    `reach`: how far beyond the means the frame holds intervals, the means' range or twice the usual interval.
    """

    title: str
    x_label: str
    y_label: str
    spots: tuple[Spot, ...]
    floors: tuple[float, ...] = ()
    x_ticks: tuple[tuple[float, str], ...] = ()
    y_ticks: tuple[tuple[float, str], ...] = ()
    y_texts: tuple[tuple[float, str], ...] = ()
    joints: tuple[tuple[int, int], ...] = ()
    zero: bool = False
    reach: Literal["means", "intervals"] = "means"

    @property
    def intervals(self) -> list[Interval]:
        """Every interval drawn."""
        return [interval for spot in self.spots for interval in (spot.x, spot.y)]


@dataclass(frozen=True)
class IntervalRow:
    """A line of a chart of rows: the name, the interval (None where not measured), the text beside it, the tip."""

    name: str
    colour: str
    value: Interval | None
    text: str
    tip: str
    solid: bool = True


def row_panel(rows: Sequence[IntervalRow], x_label: str, zero: bool = False) -> SpotPanel:
    """The rows one below the other over a common scale."""
    places = [(-float(index), row) for index, row in enumerate(rows)]
    spots = tuple(
        Spot(row.name, Mark(row.colour), row.value, at(y), False, row.solid, row.tip) for y, row in places if row.value
    )
    names, texts = tuple((y, row.name) for y, row in places), tuple((y, row.text) for y, row in places)
    return SpotPanel("", x_label, "", spots, y_ticks=names, y_texts=texts, zero=zero, reach="intervals")


def at(place: float) -> Interval:
    """A place on a scale that is no mean over seeds."""
    return Interval(1, place, None, None)


@dataclass(frozen=True)
class TextPanel:
    """A small table of printed cells."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Panel = LinePanel | StackPanel | BarPanel | HeatPanel | SpotPanel
PagePanel = LinePanel | SpotPanel | CellPanel


@dataclass(frozen=True)
class Page:
    """A figure's content: panels in rows of `columns`, and `below` them a table.

    `size`: inches. `footnotes`: what is printed under the panels. `remarks`: what only the caption says. `absent`: why
    a row that has runs is not shown, by label. `key`: entries of the legend that no line makes.
    """

    panels: tuple[Panel, ...]
    columns: int
    size: tuple[float, float]
    footnotes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)
    below: TextPanel | None = None
    key: tuple[tuple[str, str], ...] = ()

    @property
    def intervals(self) -> list[Interval]:
        """Every interval drawn."""
        return [interval for panel in self.panels for interval in panel.intervals]


def with_seeds(page: Page, spread: str = "band") -> Page:
    """The page that says of how many seeds each series is: in a footnote, and in the names of the odd ones.

    spread: what shows the interval, such as band.
    """
    ranges: dict[str, tuple[int, int]] = {}
    for index, panel in enumerate(page.panels):
        for name, intervals in _named(panel, index):
            if intervals:
                counts = [*(interval.n for interval in intervals), *ranges.get(name, ())]
                ranges[name] = min(counts), max(counts)
    kinds = Counter(ranges.values()) or Counter([(0, 0)])
    usual = max(kinds, key=lambda found: (kinds[found], found))
    odd = {name: f"n = {_text(found)}" for name, found in ranges.items() if found != usual and name}
    named = replace(page, panels=tuple(_renamed(panel, i, odd) for i, panel in enumerate(page.panels)))
    lowest, highest = min(found[0] for found in kinds), max(found[1] for found in kinds)
    notes = [f"One seed (n = 1): no {spread}."]
    if highest > 1:
        unless = " unless said" if len(kinds) > 1 else ""
        notes = [f"Mean over n = {_text(usual)} seeds{unless}; {spread}: 95 % t interval."]
        notes += [f"n = 1 has no {spread}."] if lowest == 1 else []
        if "" in ranges and ranges[""] != usual:
            notes.append(f"Lines without a name: n = {_text(ranges[''])}.")
    return replace(named, footnotes=(*notes, *page.footnotes))


def _named(panel: Panel, index: int) -> list[tuple[str, list[Interval]]]:
    """The intervals of a panel by the label that stands for them, or by the panel's place."""
    if isinstance(panel, LinePanel):
        return [(line.label, [point for point in line.points if point]) for line in panel.lines]
    if isinstance(panel, SpotPanel):
        return [(spot.label, [spot.x, spot.y]) for spot in panel.spots]
    return [(f"panel {index}", panel.intervals)]


def _text(found: tuple[int, int]) -> str:
    return str(found[0]) if found[0] == found[1] else f"{found[0]}–{found[1]}"


def _renamed(panel: Panel, index: int, odd: dict[str, str]) -> Panel:
    def label(name: str) -> str:
        return f"{name} ({odd[name]})" if name in odd else name

    if isinstance(panel, LinePanel):
        return replace(panel, lines=tuple(replace(line, label=label(line.label)) for line in panel.lines))
    if isinstance(panel, SpotPanel):
        return replace(panel, spots=tuple(replace(spot, label=label(spot.label)) for spot in panel.spots))
    said = odd.get(f"panel {index}", "")
    if isinstance(panel, BarPanel):
        return replace(panel, note="  ".join(filter(None, (said, panel.note))))
    return replace(panel, title=f"{panel.title} ({said})") if said else panel
