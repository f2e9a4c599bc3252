"""How the report says things in short: rows, intervals, marks."""

from __future__ import annotations

from collections.abc import Mapping

from spectra_exp.config.names import METHOD_FACTORS, setting_text
from spectra_exp.presentation.html import Heading
from spectra_exp.presentation.text import interval_text
from spectra_exp.reporting.grid import Row, Section

NOT_CAUSAL = "not causal"


def marks(section: Section, row: Row) -> list[str]:
    """What a reader must know of the row: stale runs, and figures that saw the future."""
    found = [] if section.causal(row) else [NOT_CAUSAL]
    return [*found, "stale"] if section.stale(row) else found


def section_heading(section: Section) -> Heading | None:
    """What was typed beside the study's own values; None where it was run as in its file."""
    return Heading(section.title) if section.special else None


def remarks(section: Section, names: Mapping[str, Row]) -> list[str]:
    """A line for each mark that rows have, with their names."""
    found: dict[str, list[str]] = {}
    for name, row in names.items():
        for mark in marks(section, row):
            found.setdefault(mark, []).append(name)
    return [
        f"{mark.capitalize()}: {'all' if len(rows) == len(names) else ', '.join(rows)}." for mark, rows in found.items()
    ]


def described(section: Section, row: Row, metrics: tuple[str, ...], head: str | None = None) -> str:
    """The row's name, its figures with their intervals, seeds and marks, a line each."""
    lines = [head or row.label]
    lines += [f"{metric} {interval_text(section.interval(row, metric)) or 'not measured'}" for metric in metrics]
    seeds = len(row.runs)
    return "\n".join([*lines, f"n {seeds}, " + ", ".join(marks(section, row) or ["causal"])])


def setting_name(row: Row) -> str:
    """The row's own settings, without the method that all rows share."""
    return ", ".join(setting_text(k, v) for k, v in row.key.items() if k not in METHOD_FACTORS) or row.label


def causal_text(value: object) -> str:
    """yes, no, or nothing where it was not measured."""
    return "yes" if value is True else "no" if value is False else ""
