"""The list of all completed runs, each with its page, its main figures and its marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from spectra_exp.config.names import method_name
from spectra_exp.presentation.colours import ink
from spectra_exp.presentation.html import Badge, Block, Cell, Row, Table, anchor, file_link
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.collect import Collected
from spectra_exp.reporting.report.words import NOT_CAUSAL
from spectra_exp.reporting.sections import run_factors

METRICS = ("val_loss", "load_cv", "max_vio", "expert_overlap")
LEAD = "One line a run; its name opens its page: configuration, curves, routing pictures, log."


PageOf = Callable[[str], str | None]
"""The address of a run's page, None for a report without pages of runs."""


def page_beside(run_id: str) -> str | None:
    """The address of a run's page where the report has one for each."""
    return file_link("runs", f"{run_id}.html")


def run_block(collected: Collected, page_of: PageOf) -> Block:
    """All runs by label and seed."""
    runs = sorted(collected.by_run.values(), key=lambda run: (run["label"], run["seed"], run["run_id"]))
    seen: set[str] = set()
    rows = []
    for run in runs:
        # Charts link to the first run of a cell.
        cell = run["cell_id"]
        place = None if cell in seen else f"cell-{anchor(cell)}"
        seen.add(cell)
        rows.append(_row(collected, run, place, page_of))
    grid = Table(
        "Runs", ["run", "method", "seed", "steps", *METRICS, "studies", "marks"], rows, ("seed", "steps", *METRICS)
    )
    return Block("runs", f"All {len(runs)} runs", LEAD, grid)


def run_marks(collected: Collected, run: dict[str, Any]) -> list[Badge]:
    """What a reader must know of the run."""
    marks = [Badge(NOT_CAUSAL, "bad")] if run["causal"] is False else []
    if run["causal"] is not False and run["causal_training"] is False:
        marks.append(Badge("training rule not causal", "warn"))
    if run["stale"]:
        marks.append(Badge("stale", "warn"))
    if run["run_id"] in collected.odd:
        marks.append(Badge("odd", "warn"))
    return marks


def _row(collected: Collected, run: dict[str, Any], place: str | None, page_of: PageOf) -> Row:
    cells: list[Cell | str] = [
        Cell(run["run_id"], href=page_of(run["run_id"]), ident=place),
        Cell(run["label"], swatch=ink(method_name(run_factors(run)))),
        Cell(str(run["seed"]), "n"),
        Cell(str(run["max_steps"]), "n"),
        *(Cell(_figure(collected, run["run_id"], metric), "n") for metric in METRICS),
        ", ".join(run["studies"]),
        Cell(badges=run_marks(collected, run)),
    ]
    return Row(cells, f"run-{anchor(run['run_id'])}")


def _figure(collected: Collected, run_id: str, metric: str) -> str:
    value = collected.figures.get((run_id, metric), (math.nan, math.nan))[0]
    return number_text(value) if math.isfinite(value) else ""
