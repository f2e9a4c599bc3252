"""The tables' printed grids as HTML; a cell's text is that of the other formats."""

from __future__ import annotations

import re

from spectra_exp.presentation.html import Badge, Cell, Choice, Content, Fold, Group, Heading, Notes, Row, Table, anchor
from spectra_exp.reporting.tables import spec

NUMBER = re.compile(r"[\[+−-]?[+−-]?[\d.]+(e[+-]?\d+)?[kMG]?( ± \S+|, \S+\])?( \*{1,3})?|")
VERDICTS = {"supported": "good", "contradicted": "bad", "inconclusive": "warn", "not tested": "plain"}


def table_details(table: spec.Table) -> Fold:
    """One table of the catalogue, folded."""
    rows = sum(len(part.grids[0].rows) for part in table.parts if part.grids)
    files = f"{table.name}: {rows} row{'s' * (rows != 1)}, {len(table.gaps)} missing"
    return Fold(table.title, table_content(table), files, f"table-{anchor(table.name)}")


def table_content(table: spec.Table) -> Content:
    """All parts of a table with their notes."""
    return [_part(part) for part in table.parts] or "No row yet."


def _part(part: spec.Part) -> Group:
    grids = [(grid.title, grid_table(grid)) for grid in part.grids]
    return Group("part", [Heading(part.title), Choice("Show", grids), Notes(part.notes)])


def grid_table(grid: spec.Grid) -> Table:
    """A grid with its head, best values marked."""
    numeric = [all(NUMBER.fullmatch(row[c]) for row in grid.rows) for c in range(len(grid.headers))]
    rows = [
        Row([_cell(text, grid.headers[c], (r, c) in grid.best, numeric[c]) for c, text in enumerate(row)])
        for r, row in enumerate(grid.rows)
    ]
    return Table(grid.title, grid.headers, rows, [h for h, is_so in zip(grid.headers, numeric, strict=True) if is_so])


def _cell(text: str, header: str, best: bool, numeric: bool) -> Cell:
    if header == "verdict" and text in VERDICTS:
        return Cell(badges=[Badge(text, VERDICTS[text])])
    if header.endswith("causal") and text == "no":
        return Cell(badges=[Badge(text, "warn")])
    return Cell(text, " ".join(name for name, is_so in (("n", numeric), ("best", best)) if is_so) or None)
