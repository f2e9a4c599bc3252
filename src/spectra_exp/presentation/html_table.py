"""HTML tables that can be sorted and filtered."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from spectra_exp.measure import METRICS
from spectra_exp.presentation.markup import Content, Html, breakable, element


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


def _head(header: str, numeric: bool) -> Html:
    button = element("button", breakable(header), type="button", title=_meaning(header))
    return element("th", button, scope="col", class_="n" if numeric else None)


def _meaning(header: str) -> str | None:
    metric = METRICS.get(header)
    if metric is None:
        return None
    better = "" if metric.direction == "none" else f"; {metric.direction} is better"
    return f"{metric.meaning}{better}"
