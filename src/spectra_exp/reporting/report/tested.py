"""What table 13 says of a pair of rows, found by their names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.tables.spec import Table
from spectra_exp.statistics.corrections import stars

NAME = "table13_significance"


@dataclass(frozen=True)
class Outcome:
    """One comparison, first − second; `shown_...`: the texts of the table's own cells."""

    difference: float | None
    p_corrected: float | None
    verdict: str
    shown_difference: str
    shown_interval: str

    @property
    def stars(self) -> str:
        """Of the corrected p-value."""
        return stars(self.p_corrected)


def outcomes(table: Table, section: Section) -> dict[tuple[str, str, str], Outcome]:
    """(first label, second label, metric) → outcome, of the comparisons made in this section."""
    figures = {
        (r["section"], r["family"], r["comparison"], r["metric"]): (_number(r["difference"]), _number(r["p_holm"]))
        for r in table.frame.to_dict("records")
    }
    shown: dict[tuple[str, str], Outcome] = {}
    for part in table.parts:
        for grid in part.grids:
            for row in grid.rows if part.title == section.title else ():
                cell = dict(zip(grid.headers, row, strict=True))
                key = (part.title, grid.title, cell["comparison"], cell["metric"])
                shown[key[2:]] = Outcome(*figures[key], cell["verdict"], cell["difference"], cell["95 % CI"])
    metrics = list(dict.fromkeys(metric for _, metric in shown))
    return {
        (a.label, b.label, metric): shown[f"{a.label} − {b.label}", metric]
        for a in section.rows
        for b in section.rows
        for metric in metrics
        if (f"{a.label} − {b.label}", metric) in shown
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
