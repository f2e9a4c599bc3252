"""How findings are shown: lines for the terminal, and a page."""

from __future__ import annotations

from collections import Counter

from spectra_exp.doctor.examine import Report
from spectra_exp.doctor.registry import DOUBTFUL, FAULT, NOT_APPLICABLE, OK, Finding, Outcome
from spectra_exp.presentation.html import (
    TEMPLATES,
    Badge,
    Block,
    Cell,
    Facts,
    Heading,
    Notes,
    Row,
    Table,
    Text,
    html_page,
)

KINDS = {OK: "good", FAULT: "bad", DOUBTFUL: "warn", NOT_APPLICABLE: "plain"}
HEADERS = ["check", "finding", "figure", "limit", "where", "what was seen"]


def summary(report: Report) -> str:
    """One line: how many checks found what."""
    counts = Counter(finding.outcome.status for finding in report.findings)
    return ", ".join(f"{counts[status]} {status}" for status in KINDS if counts[status])


def text_of(report: Report) -> str:
    """The findings as lines; for faults and doubts also where, what it means and what to do."""
    width = max(len(finding.check.title) for finding in report.findings)
    lines = [report.name, *report.notes]
    for finding in report.findings:
        outcome, check = finding.outcome, finding.check
        figure = f"{_number(outcome.figure)} ({outcome.limit_is} {_number(outcome.limit)})" if _has(outcome) else ""
        said = "; ".join(part for part in (figure, outcome.place, outcome.note) if part)
        lines.append(f"{outcome.status:<14}  {check.title:<{width}}  {said}".rstrip())
        if _is_explained(finding):
            lines += [f"{'':<16}{part}" for part in (check.meaning, f"Do: {check.advice}")]
    made_with = ", ".join(f"{name} {value}" for name, value in report.made_with.items())
    return "\n".join([*lines, *([f"Made with {made_with}."] if made_with else []), summary(report)])


def page_of(report: Report) -> str:
    """The page, one file that fetches nothing."""
    rows = [_row(finding) for finding in report.findings]
    table = Table("Findings", HEADERS, rows, ["figure", "limit"])
    told = [finding for finding in report.findings if _is_explained(finding)]
    blocks = [Block("findings", "Findings", summary(report), [Notes(report.notes), table])]
    if told:
        blocks.append(Block("meaning", "What it means, and what to do", None, [_explained(f) for f in told]))
    limits = [Row([f.check.title, f.check.figure, f.check.ok_if]) for f in report.findings]
    how = [
        Facts([(name, str(value)) for name, value in report.made_with.items()]),
        Table("Limits", ["check", "figure", "ok if the figure is"], limits),
    ]
    blocks.append(Block("made_with", "How it was examined", None, how))
    return html_page(TEMPLATES / "page.html", f"Routing of {report.name}", blocks)


def _row(finding: Finding) -> Row:
    outcome = finding.outcome
    badge = Cell(badges=[Badge(outcome.status, KINDS[outcome.status])])
    figures = [Cell(_number(value), "n", number=value) for value in (outcome.figure, outcome.limit)]
    return Row([Cell(finding.check.title, small=finding.check.figure), badge, *figures, outcome.place, outcome.note])


def _explained(finding: Finding) -> list[object]:
    outcome, check = finding.outcome, finding.check
    facts = Facts(
        [
            ("Measured", f"{check.figure}: {_number(outcome.figure)}" if _has(outcome) else None),
            ("Limit", f"{_number(outcome.limit)} ({outcome.limit_is})" if _has(outcome) else None),
            ("Where", outcome.place or None),
            ("Seen", outcome.note or None),
        ]
    )
    return [Heading(f"{check.title}: {outcome.status}"), Text(check.meaning), Text(check.advice), facts]


def _is_explained(finding: Finding) -> bool:
    """Whether meaning and advice are said: of a fault, and of a doubt about something that was measured."""
    return finding.outcome.status == FAULT or (finding.outcome.status == DOUBTFUL and _has(finding.outcome))


def _has(outcome: Outcome) -> bool:
    return outcome.figure is not None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
