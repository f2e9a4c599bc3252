"""What a table is: the declaration of one, and the content that every format prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spectra_exp.presentation.text import bounds_text, number_text
from spectra_exp.reporting.grid import Choice, Row, Section
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.corrections import holm

if TYPE_CHECKING:
    import pandas as pd

Correction = Callable[[Mapping[Any, "float | None"]], dict[Any, "float | None"]]


@dataclass(frozen=True)
class Panel:
    """A part of a table narrow enough to read: its title and the metrics beside each row.

    `beside`: also the seeds, causality, active parameters and FLOPs of each row.
    """

    title: str
    metrics: tuple[str, ...]
    beside: bool = False


@dataclass(frozen=True)
class TableSpec:
    """A table with a row for each cell of a study.

    `study`: whose rows; empty for every cell there is. `only`: values that rows must have, by factor. `baseline`: the
    row that each other of the same `osr` is tested against in the metrics `tested`; the table's tests are one family,
    corrected by `correction`. `pareto`: metrics whose front among causal rows is marked.
    """

    name: str
    title: str
    study: str
    panels: tuple[Panel, ...]
    only: Choice = field(default_factory=dict)
    baseline: Choice = field(default_factory=dict)
    tested: tuple[str, ...] = ()
    correction: Correction = holm
    pareto: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of all panels, each once."""
        return tuple(dict.fromkeys(m for panel in self.panels for m in panel.metrics))


@dataclass(frozen=True)
class Grid:
    """One printed grid of cells. `best`: (row, column) of the cells with the best value of their column."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()


# The keys of an interval's two ends.
Ends = tuple[str, str]


def record_grid(
    title: str, shown: Mapping[str, str] | Mapping[str | Ends, str], records: Sequence[Mapping[str, Any]]
) -> Grid:
    """The records under the headers of `shown`, by key; a pair of keys is of an interval's two ends."""
    return Grid(title, list(shown.values()), [[_printed(record, key) for key in shown] for record in records])


def _printed(record: Mapping[str, Any], key: str | Ends) -> str:
    if isinstance(key, tuple):
        return bounds_text(*(record[end] for end in key))
    value = record[key]
    return number_text(value) if value is None or isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Part:
    """A part of a table whose rows may be compared: its grids, and what a reader must know about them."""

    title: str
    grids: list[Grid]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gap:
    """Something that a table lacks. `row`: whose; `what`: seeds or metric; `command`: what fills it, empty if none."""

    table: str
    part: str
    row: str
    what: str
    reason: str
    command: str


@dataclass(frozen=True)
class Tested:
    """One comparison of two rows of a section in one metric.

    `family`: the comparisons that it is corrected with; `verdict`: what the tests allow to say, in words.
    """

    section: Section
    a: Row
    b: Row
    metric: str
    family: str
    test: Comparison
    p_corrected: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A finished table.

    `frame`: every figure, for programs; `parts`: the same as printed; `gaps`: what it lacks; `tests`: what its rows
    are, where they are tests; `methods`: of columns of two methods side by side, whose differences from the other they
    hold.
    """

    name: str
    title: str
    frame: pd.DataFrame
    parts: list[Part]
    gaps: list[Gap] = field(default_factory=list)
    tests: list[Tested] = field(default_factory=list)
    methods: Set[str] = frozenset()
