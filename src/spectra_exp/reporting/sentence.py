"""What a set of runs shows, in one sentence made from the comparison of two of its rows."""

from __future__ import annotations

from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.grid import SWITCH, Row, Section
from spectra_exp.reporting.tables.verdicts import verdict
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.corrections import holm

# Each metric as a reader calls it, with its unit.
COMPARED = {"val_loss": ("validation loss", " nats"), "load_cv": ("load CV", "")}
MEANING = {
    "better": "which is better",
    "worse": "which is worse",
    "equivalent": "too little to matter",
    "undecided": "which these seeds do not decide",
}


def sentence_of(sections: list[Section]) -> str:
    """One sentence on the largest group of comparable runs; empty without two rows that may be compared.

    The p-values of its differences are corrected by Holm's method over them.
    """
    for section in sections[:1]:
        if (pair := _pair(section)) is not None:
            return _said(section, *pair)
    return ""


def _pair(section: Section) -> tuple[Row, Row] | None:
    """SPECTRA and Switch where both are there, else the plainest rows; of the rows that may be compared."""
    rows = sorted((row for row in section.rows if row.runs), key=lambda row: (row.label.count(","), row.label))
    if not rows:
        return None
    full = [row for row in rows if row.matches({"router": "spectra"}) and "ablation" not in row.key]
    first = (full or rows)[0]
    others = [row for row in rows if row is not first and not section.pair_problem(first, row)]
    found = [row for row in others if row.matches(SWITCH)] or others
    return (first, found[0]) if found else None


def _said(section: Section, a: Row, b: Row) -> str:
    causal = section.causal(a) and section.causal(b)
    # A loss that saw the future is no evidence.
    metrics = [metric for metric in COMPARED if causal or metric != "val_loss"]
    tests = {metric: section.compare(a, b, metric) for metric in metrics}
    corrected = holm({metric: test.p for metric, test in tests.items()})
    parts = [
        _part(metric, test, test.difference, corrected[metric])
        for metric, test in tests.items()
        if test.difference is not None
    ]
    if not parts:
        return ""
    seeds = max(test.n for test in tests.values())
    over = f"Over {seeds} seed{'s' * (seeds != 1)}" if seeds else "Over different seeds"
    return f"{over}, {a.label} against {b.label}: {'; '.join(parts)}."


def _part(metric: str, test: Comparison, difference: float, corrected: float | None) -> str:
    """One difference with its interval, and what it means."""
    name, unit = COMPARED[metric]
    side = "lower" if difference < 0 else "higher"
    size = f"{name} {number_text(abs(difference))}{unit} {side}"
    if test.ci_low is None or test.ci_high is None:
        return f"{size} (no interval: {test.note})"
    means = MEANING[verdict(test, corrected, metric).split()[0]]
    return f"{size}, {means} (95 % interval {number_text(test.ci_low)} to {number_text(test.ci_high)})"
