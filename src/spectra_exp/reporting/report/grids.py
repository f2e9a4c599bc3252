"""The tables' printed grids as HTML; a cell's text is that of the other formats."""

from __future__ import annotations

import re

from spectra_exp.presentation.html_table import sortable
from spectra_exp.presentation.layout import badge, choice, notes
from spectra_exp.presentation.markup import Html, anchor, element
from spectra_exp.reporting.tables.spec import Grid, Table

NUMBER = re.compile(r"[\[+−-]?[+−-]?[\d.]+(e[+-]?\d+)?[kMG]?( ± \S+|, \S+\])?( \*{1,3})?|")
VERDICTS = {"supported": "good", "contradicted": "bad", "inconclusive": "warn", "not tested": "plain"}


def table_details(table: Table) -> Html:
    """One table of the catalogue, folded."""
    rows = sum(len(part.grids[0].rows) for part in table.parts if part.grids)
    files = f"{table.name}: {rows} row{'s' * (rows != 1)}, {len(table.gaps)} missing"
    summary = element("summary", element("b", table.title), " ", element("span", files, class_="aside"))
    return element("details", summary, table_content(table), id=f"table-{anchor(table.name)}", class_="table")


def table_content(table: Table) -> Html:
    """All parts of a table with their notes."""
    if not table.parts:
        return element("p", "No row yet.")
    return element("div", [_part(part) for part in table.parts])


def _part(part) -> Html:
    grids = [(grid.title, grid_table(grid)) for grid in part.grids]
    head = element("h3", part.title)
    return element("div", head, choice("Show", grids), notes(part.notes), class_="part")


def grid_table(grid: Grid) -> Html:
    """A grid with its head, best values marked."""
    numeric = [all(NUMBER.fullmatch(row[c]) for row in grid.rows) for c in range(len(grid.headers))]
    body = [
        element("tr", [_cell(text, grid.headers[c], (r, c) in grid.best, numeric[c], c) for c, text in enumerate(row)])
        for r, row in enumerate(grid.rows)
    ]
    return sortable(grid.title, grid.headers, body, {h for h, n in zip(grid.headers, numeric, strict=True) if n})


def _cell(text: str, header: str, best: bool, numeric: bool, column: int) -> Html:
    if header == "verdict" and text in VERDICTS:
        return element("td", badge(text, VERDICTS[text]))
    if header.endswith("causal") and text == "no":
        return element("td", badge(text, "warn"))
    kind = " ".join(name for name, is_so in (("n", numeric), ("best", best)) if is_so) or None
    return element("th" if column == 0 else "td", text, class_=kind, scope="row" if column == 0 else None)
