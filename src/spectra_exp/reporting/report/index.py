"""The report's first page, put together from its blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spectra_exp.measure import METRICS
from spectra_exp.presentation.html import Block, Fold, Row, Table, html_page
from spectra_exp.presentation.svg import Draw, draw_svg
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.ablations import ablation_block
from spectra_exp.reporting.report.fronts import front_block
from spectra_exp.reporting.report.grids import table_content, table_details
from spectra_exp.reporting.report.headline import headline_block
from spectra_exp.reporting.report.loads import load_block
from spectra_exp.reporting.report.missing import empty_block, missing_block, odd_block
from spectra_exp.reporting.report.pictures import picture_block
from spectra_exp.reporting.report.run_list import PageOf, page_beside, run_block
from spectra_exp.reporting.report.sweeps import sweep_block
from spectra_exp.reporting.tables import spec
from spectra_exp.reporting.tables.catalogue import ROUTING_METRICS
from spectra_exp.reporting.tables.gaps import merged_gaps
from spectra_exp.reporting.tables.significance import NAME as SIGNIFICANCE

TEMPLATE = Path(__file__).parent / "templates" / "index.html"
TITLE = "SPECTRA: what the runs show"
HYPOTHESES = "hypotheses"
UNTESTED = "None is tested by these runs"
HYPOTHESES_LEAD = "Each hypothesis as a stated test over stated runs. Without runs there is no verdict."
TABLES_LEAD = (
    "Every table, with the cells that its CSV, Markdown and LaTeX files hold. Best values of causal rows are bold. "
    "A head sorts; an empty cell was not measured, and stands under what is missing."
)
METRICS_LEAD = "Counts are of executed assignments on the held-out set; see docs/metrics.md."


def index_page(
    material: Material, tables: list[spec.Table], draw: Draw = draw_svg, page_of: PageOf = page_beside
) -> str:
    """The page over all runs, or how to start some where there are none. `page_of`: where each run's own page lies."""
    by_name = {table.name: table for table in tables}
    untested = set(by_name[HYPOTHESES].frame["verdict"]) <= {"not tested"}
    content = table_content(by_name[HYPOTHESES])
    verdicts = Block(HYPOTHESES, "Hypotheses", HYPOTHESES_LEAD, Fold(UNTESTED, content) if untested else content)
    if material.collected.runs.empty:
        blocks = [empty_block(material), missing_block(tables), odd_block(material)]
    else:
        own = by_name[ROUTING_METRICS.name]
        blocks = [
            picture_block(material),
            Block("table", "Their figures", own.title, table_content(own)),
            headline_block(material, by_name[SIGNIFICANCE]),
            None if untested else verdicts,
            front_block(material),
            ablation_block(material, by_name[SIGNIFICANCE]),
            sweep_block(material),
            load_block(material),
            run_block(material.collected, page_of),
            odd_block(material, page_of),
            _metric_block(),
            Block("tables", "Tables of the studies", TABLES_LEAD, [table_details(t) for t in tables if t is not own]),
            verdicts if untested else None,
            missing_block(tables),
        ]
    return html_page(TEMPLATE, TITLE, blocks, draw, tiles=_tiles(material, tables))


def _tiles(material: Material, tables: list[spec.Table]) -> list[dict[str, Any]]:
    """How much there is to go by, and the block that each number is of."""
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
    return [
        {"number": number, "name": name.removesuffix("s") if number == 1 else name, "place": place, "warn": name in bad}
        for number, name, place in counted
        if number or name not in bad
    ]


def _metric_block() -> Block:
    """What each metric means."""
    rows = [
        Row([name, m.meaning, m.unit, "" if m.direction == "none" else m.direction])
        for name, m in sorted(METRICS.items())
    ]
    grid = Table("Metrics", ["metric", "meaning", "unit", "better"], rows)
    return Block("metrics", "What the metrics mean", METRICS_LEAD, grid)
