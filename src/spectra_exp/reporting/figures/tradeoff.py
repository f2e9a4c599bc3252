"""Balance against loss: where each method stands, and the front that no other betters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectra_exp.presentation.panels import Page, Spot, SpotPanel, with_seeds
from spectra_exp.presentation.style import COLUMN, method_mark
from spectra_exp.reporting.figures.labels import marked, metric_label, with_context
from spectra_exp.reporting.figures.training import floors_of
from spectra_exp.reporting.grid import Row, Section


@dataclass(frozen=True)
class Tradeoff:
    """A page of one panel, the metric `x` against `y`."""

    x: str
    y: str

    def __call__(self, section: Section, rows: Sequence[Row]) -> Page:
        """The page of these rows; only causal ones can be on the front, as in the tables."""
        places = [(section.interval(row, self.x), section.interval(row, self.y)) for row in rows]
        causal = [bool(row.runs) and section.causal(row) for row in rows]
        front = section.front(rows, (self.x, self.y))
        spots = tuple(
            Spot(marked(section, row, row.label), method_mark(row.method, i), x, y, front[i], causal[i])
            for i, (row, (x, y)) in enumerate(zip(rows, places, strict=True))
            if x and y
        )
        absent = {
            row.label: " and ".join(m for m, v in zip((self.x, self.y), place, strict=True) if not v)
            for row, place in zip(rows, places, strict=True)
            if row.runs and not all(place)
        }
        panel = SpotPanel("", metric_label(self.x), metric_label(self.y), spots, floors_of(section, rows, self.x))
        page = Page((panel,), 1, (COLUMN, 3.7), ("Ringed and joined: Pareto front of the causal ones.",), absent=absent)
        return with_context(with_seeds(page, "bars"), section, rows)
