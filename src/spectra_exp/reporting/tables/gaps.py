"""What a table lacks, and the command that would fill it: `missing.csv`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import astuple, fields, replace
from pathlib import Path

from spectra_exp.config.tree import train_words
from spectra_exp.downstream.tasks import SCORE
from spectra_exp.foundations.files import write_text
from spectra_exp.presentation.text import csv_text
from spectra_exp.reporting.collect import INFERENCE, Collected
from spectra_exp.reporting.grid import DERIVED, Row, Section
from spectra_exp.reporting.tables.spec import Gap, TableSpec
from spectra_exp.studies.state import run_state, stored_state


def row_gaps(spec: TableSpec, section: Section, rows: Iterable[Row]) -> list[Gap]:
    """Seeds without a finished run, and metrics that no finished run of a row has."""
    found = []
    for row in rows:
        found += seed_gaps(spec.name, section, row)
        wanted = [m for m in spec.metrics if INFERENCE not in m]
        lacking = [m for m in wanted if row.runs and not section.values(row, m)]
        if SCORE in lacking and spec.study:
            lacking.remove(SCORE)
            runs = ",".join(row.runs[seed] for seed in sorted(row.runs))
            command = f"spectra-exp downstream run={runs} data=FOLDER"
            found.append(Gap(spec.name, section.title, row.label, SCORE, "not evaluated", command))
        for metrics, why in (
            ([m for m in lacking if m not in DERIVED], "not in its runs"),
            ([m for m in lacking if m in DERIVED], "cannot be computed from the rows beside it: docs/metrics.md"),
        ):
            if metrics and spec.study:
                found.append(Gap(spec.name, section.title, row.label, ", ".join(metrics), why, ""))
    return found


def seed_gaps(table: str, section: Section, row: Row) -> list[Gap]:
    """The seeds of the row that a launch expects and no run has finished."""
    if section.study is None:
        return []
    if not row.expected:
        never = Gap(table, section.title, row.label, "all seeds", "never launched", section.study.asked())
        return [] if row.runs else [never]
    seeds = sorted(row.expected.keys() - row.runs.keys())
    if not seeds:
        return []
    states = [_state(section.collected, row.expected[seed].run_id) for seed in seeds]
    asked = [o for o in row.expected[seeds[0]].overrides if not o.startswith(("study=", "seed="))]
    words = [*train_words(), "-m", *asked, f"study={section.study.name}", f"seed={','.join(map(str, seeds))}"]
    # A run that calls itself completed and does not count would otherwise be passed over as done.
    words += ["force=true"] if any(refused for _, refused in states) else []
    reasons = ", ".join(sorted({state for state, _ in states}))
    what = f"seeds {', '.join(map(str, seeds))}"
    return [Gap(table, section.title, row.label, what, reasons, shlex.join(words))]


def _state(collected: Collected, run_id: str | None) -> tuple[str, bool]:
    """The state of a run that no table counts, or why it counts nowhere, and whether it calls itself completed."""
    stored = collected.stored.get(run_id or "")
    if stored is None or (stored.summary is not None and stored.summary["status"] != "completed"):
        found = run_state(collected.runs_folder, run_id) if stored is None else stored_state(stored)
        return found.state, False
    if stored.run_id not in collected.skipped:
        return "its run is made, with other settings than this row's", False
    return collected.skipped[stored.run_id], stored.summary is not None


def merged_gaps(gaps: Iterable[Gap]) -> list[Gap]:
    """Each gap once, with the names of all the tables that have it: what is listed and counted wherever gaps are."""
    tables: dict[Gap, list[str]] = {}
    for gap in gaps:
        tables.setdefault(replace(gap, table=""), []).append(gap.table)
    return [replace(gap, table=", ".join(dict.fromkeys(names))) for gap, names in tables.items()]


def write_gaps(gaps: Iterable[Gap], folder: Path) -> Path:
    """The path of `missing.csv` in `folder`, written whole; only its head when nothing is missing."""
    path = folder / "missing.csv"
    write_text(path, csv_text([f.name for f in fields(Gap)], [astuple(gap) for gap in merged_gaps(gaps)]))
    return path
