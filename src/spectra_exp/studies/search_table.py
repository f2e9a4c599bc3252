"""The table of a search: every finished trial, its parameters and objectives, and whether it is on the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_exp.foundations.files import write_text
from spectra_exp.presentation.text import csv_text, markdown_table, number_text, print_table


@dataclass(frozen=True)
class TrialRow:
    """One finished trial. `objectives` is empty for a failed one, and `reason` says why it failed."""

    number: int
    on_front: bool
    objectives: dict[str, float]
    params: dict[str, Any]
    run_id: str
    reason: str


def write_search_table(
    folder: Path, name: str, directions: dict[str, str], axes: Sequence[str], rows: Sequence[TrialRow]
) -> Path:
    """Write `search_<name>.csv` and `.md` in `folder`, each whole; the path of the latter."""
    csv_path, md_path = folder / f"search_{name}.csv", folder / f"search_{name}.md"
    headers = ["trial", "pareto", "state", *directions, *axes, "run_id", "reason"]
    write_text(csv_path, csv_text(headers, [_cells(row, directions, axes, exact=str) for row in rows]))
    goals = ", ".join(f"{metric} ({direction})" for metric, direction in directions.items())
    failed = sum(bool(row.reason) for row in rows)
    parts = [
        f"# Search {name}: {goals}\n",
        f"{len(rows)} trials, {failed} failed. Pareto: no other is as good in every objective and better in one.\n",
        markdown_table(headers, [_cells(row, directions, axes, exact=number_text) for row in rows]),
    ]
    write_text(md_path, "\n".join(parts))
    return md_path


def print_front(name: str, directions: dict[str, str], axes: Sequence[str], rows: Sequence[TrialRow]) -> None:
    """Print the trials of the front, best first in the first objective."""
    first = next(iter(directions))
    sign = 1 if directions[first] == "minimize" else -1
    front = sorted((row for row in rows if row.on_front), key=lambda row: sign * row.objectives[first])
    headers = ["trial", *directions, *axes]
    shown = [[str(row.number), *_values(row, directions, axes, number_text)] for row in front]
    title = f"search {name}: {'Pareto front' if len(directions) > 1 else 'best trial'} of {len(rows)} trials"
    print_table(title, headers, shown)


def _cells(row: TrialRow, directions: dict[str, str], axes: Sequence[str], exact: Any) -> list[str]:
    state = "failed" if row.reason else "complete"
    values = _values(row, directions, axes, exact)
    return [str(row.number), "yes" if row.on_front else "", state, *values, row.run_id, row.reason]


def _values(row: TrialRow, directions: dict[str, str], axes: Sequence[str], exact: Any) -> list[str]:
    found = [row.objectives.get(metric) for metric in directions] + [row.params.get(key) for key in axes]
    return ["" if v is None else exact(v) if isinstance(v, float) else str(v) for v in found]
