"""The report's first page, put together from its blocks."""

from __future__ import annotations

from spectra_exp.measure import METRICS
from spectra_exp.measure.base import Metric
from spectra_exp.presentation.html_table import sortable
from spectra_exp.presentation.layout import Block, page
from spectra_exp.presentation.markup import Html, breakable, element
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.ablations import ablation_block
from spectra_exp.reporting.report.fronts import front_block
from spectra_exp.reporting.report.grids import table_content, table_details
from spectra_exp.reporting.report.headline import headline_block
from spectra_exp.reporting.report.loads import load_block
from spectra_exp.reporting.report.missing import empty_block, missing_block, odd_block
from spectra_exp.reporting.report.run_list import run_block
from spectra_exp.reporting.report.sweeps import sweep_block
from spectra_exp.reporting.report.tested import NAME as SIGNIFICANCE
from spectra_exp.reporting.tables.gaps import merged_gaps
from spectra_exp.reporting.tables.spec import Table

TITLE = "SPECTRA: what the runs show"
HYPOTHESES = "hypotheses"
HYPOTHESES_LEAD = "Each hypothesis as a stated test over stated runs. Without runs there is no verdict."
TABLES_LEAD = (
    "Every table, with the cells that its CSV, Markdown and LaTeX files hold. Best values of causal rows are bold. "
    "A head sorts; an empty cell was not measured, and stands under what is missing."
)
METRICS_LEAD = "Counts are of executed assignments on the held-out set; see docs/metrics.md."


def index_page(material: Material, tables: list[Table]) -> str:
    """The page over all runs, or how to start some where there are none."""
    by_name = {table.name: table for table in tables}
    if material.collected.runs.empty:
        blocks = [empty_block(material), missing_block(tables), odd_block(material)]
    else:
        blocks = [
            headline_block(material, by_name[SIGNIFICANCE]), _verdict_block(by_name), front_block(material),
            ablation_block(material, by_name[SIGNIFICANCE]), sweep_block(material), load_block(material),
            _table_block(tables), missing_block(tables), odd_block(material), run_block(material.collected),
            _metric_block(),
        ]  # fmt: skip
    return page(TITLE, _counts(material, tables), [block for block in blocks if block is not None])


def _counts(material: Material, tables: list[Table]) -> Html:
    """How much there is to go by."""
    collected = material.collected
    runs = list(collected.by_run.values())
    gaps = len(merged_gaps(gap for table in tables for gap in table.gaps))
    counted = [
        (len(runs), "runs", "runs"),
        (len({run["cell_id"] for run in runs}), "configurations", "runs"),
        (len({run["seed"] for run in runs}), "seeds", "runs"),
        (sum(run["causal"] is False for run in runs), "not causal", "runs"),
        (sum(bool(run["stale"]) for run in runs), "stale", "odd"),
        (len(collected.skipped) + len(collected.skipped_launches), "left out", "odd"),
        (len(collected.odd), "odd", "odd"),
        (gaps, "gaps", "missing"),
    ]
    bad = {"not causal", "stale", "left out", "odd"}
    shown = [
        _tile(number, name, place, "tile warn" if name in bad else "tile")
        for number, name, place in counted
        if number or name not in bad
    ]
    return element("div", shown, class_="tiles")


def _tile(number: int, name: str, place: str, kind: str) -> Html:
    said = name.removesuffix("s") if number == 1 else name
    return element("a", element("b", number), " ", said, href=f"#{place}", class_=kind)


def _verdict_block(by_name: dict[str, Table]) -> Block | None:
    table = by_name.get(HYPOTHESES)
    return None if table is None else Block(HYPOTHESES, "Hypotheses", HYPOTHESES_LEAD, table_content(table))


def _table_block(tables: list[Table]) -> Block:
    return Block("tables", "All tables", TABLES_LEAD, [table_details(table) for table in tables])


def _metric_block() -> Block:
    """What each metric means."""
    rows = [
        element("tr", element("th", breakable(name), scope="row"), [element("td", said) for said in _said(metric)])
        for name, metric in sorted(METRICS.items())
    ]  # fmt: skip
    grid = sortable("Metrics", ["metric", "meaning", "unit", "better"], rows)
    return Block("metrics", "What the metrics mean", METRICS_LEAD, grid)


def _said(metric: Metric) -> tuple[str, str, str]:
    """Meaning, unit and which way is better."""
    return metric.meaning, metric.unit, "" if metric.direction == "none" else metric.direction
