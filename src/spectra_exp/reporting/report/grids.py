"""The tables' printed grids as HTML that can be sorted and filtered; a cell's text is that of the other formats."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from spectra_exp.measure import METRICS
from spectra_exp.reporting.report.layout import badge, choice, notes
from spectra_exp.reporting.report.markup import Content, Html, anchor, breakable, element
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


def sortable(
    caption: str, headers: Sequence[str], rows: Sequence[Html], numeric: Collection[str] = (), foot: Content = None
) -> Html:  # fmt: skip
    """A table of rows (`tr`) with a field to filter them and heads to sort them by; `numeric`: heads of numbers."""
    heads = [_head(h, h in numeric) for h in headers]
    field = element("label", "Filter ", element("input", type="search", placeholder="words of a row"), class_="filter")
    count = element("output", f"{len(rows)} row{'s' * (len(rows) != 1)}")
    table = element(
        "table", element("caption", caption), element("thead", element("tr", heads)), element("tbody", rows),
        element("tfoot", foot) if foot else None, class_="sortable",
    )  # fmt: skip
    scroll = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return element("div", element("div", field, count, class_="tools"), scroll, class_="grid-box")


def _cell(text: str, header: str, best: bool, numeric: bool, column: int) -> Html:
    if header == "verdict" and text in VERDICTS:
        return element("td", badge(text, VERDICTS[text]))
    if header.endswith("causal") and text == "no":
        return element("td", badge(text, "warn"))
    kind = " ".join(name for name, is_so in (("n", numeric), ("best", best)) if is_so) or None
    return element("th" if column == 0 else "td", text, class_=kind, scope="row" if column == 0 else None)


def _head(header: str, numeric: bool) -> Html:
    button = element("button", breakable(header), type="button", title=_meaning(header))
    return element("th", button, scope="col", class_="n" if numeric else None)


def _meaning(header: str) -> str | None:
    metric = METRICS.get(header)
    if metric is None:
        return None
    better = "" if metric.direction == "none" else f"; {metric.direction} is better"
    return f"{metric.meaning}{better}"
