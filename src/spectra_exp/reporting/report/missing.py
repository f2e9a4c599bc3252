"""What is missing, what was left out, what is odd: nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable

from spectra_exp.config.tree import installed
from spectra_exp.presentation.html import (
    Badge,
    Block,
    Cell,
    Commands,
    CopyAll,
    Fold,
    Notes,
    Row,
    Table,
    Text,
)
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.run_list import PageOf, page_beside
from spectra_exp.reporting.tables import spec
from spectra_exp.reporting.tables.gaps import merged_gaps
from spectra_exp.studies.definition import load_study

MISSING_LEAD = "Every gap of every table, with the command that fills it. A run that is finished is not run again."
ODD_LEAD = "Runs that no table counts, with the reason, and runs that are counted but odd."
NO_FILL = "none: its runs do not measure it"
STALE = (
    "{stale} of {runs} runs are stale: run by other code than today's. They are marked, and refresh=stale runs them "
    "again."
)


def missing_block(tables: Iterable[spec.Table]) -> Block:
    """All gaps; a gap of several tables stands once."""
    merged = merged_gaps(gap for table in tables for gap in table.gaps)
    if not merged:
        return Block("missing", "What is missing", None, Text("Nothing: every cell of every table has its runs."))
    rows = [
        Row([gap.row, gap.what, gap.reason, Cell(command=gap.command) if gap.command else NO_FILL, gap.table, gap.part])
        for gap in merged
    ]
    commands = list(dict.fromkeys(gap.command for gap in merged if gap.command))
    grid = Table("Gaps", ["row", "what", "reason", "command", "tables", "part"], rows)
    copy = CopyAll(commands) if commands else None
    gaps = f"{len(merged)} gap{'s' * (len(merged) != 1)}"
    return Block("missing", "What is missing", MISSING_LEAD, Fold(gaps, [copy, grid]))


def odd_block(material: Material, page_of: PageOf = page_beside) -> Block | None:
    """Left out runs and launches, odd and stale runs; None when all is well."""
    collected = material.collected
    launches = [line.partition(": ")[::2] for line in collected.skipped_launches]
    rows = [
        _odd_row(name, reason, "left out", "bad", page_of(name) if collected.run(name).is_there else None)
        for name, reason in collected.skipped.items()
    ]
    rows += [_odd_row(name, reason, "launch left out", "bad", None) for name, reason in launches]
    rows += [_odd_row(run, reason, "odd", "warn", page_of(run)) for run, reason in collected.odd.items()]
    for path, reason in collected.damaged.items():
        run_id = collected.run_of(path)
        rows.append(_odd_row(run_id, f"{path.name}: {reason}", "file left out", "warn", page_of(run_id)))
    stale = sum(bool(run["stale"]) for run in collected.by_run.values())
    said = [STALE.format(stale=stale, runs=len(collected.by_run))] if stale else []
    if not rows and not said:
        return None
    grid = Table("Odd runs", ["run", "state", "reason"], rows) if rows else None
    return Block("odd", "Left out and odd", ODD_LEAD, [Notes(said), grid])


def empty_block(material: Material) -> Block:
    """What a reader can do where no run has finished, by make where there is a checkout."""
    demo, status = ("spectra-exp run study=demo debug=demo", "spectra-exp study status")
    if not installed():
        demo, status = "make demo", "make status"
    commands = [demo, *(load_study(name).asked() for name in ("baselines", "core")), status]
    return Block(
        "empty",
        "No finished run yet",
        f"There is no completed run in {material.outputs.name}/runs. Any of these commands starts some; then make the "
        "report again.",
        Commands(commands),
    )


def _odd_row(name: str, reason: str, state: str, kind: str, page: str | None) -> Row:
    shown = Cell(name, href=page) if page else name
    return Row([shown, Cell(badges=[Badge(state, kind)]), reason])
