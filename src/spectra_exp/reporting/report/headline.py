"""The headline: SPECTRA beside every baseline, and what the corrected tests say of each difference."""

from __future__ import annotations

from collections import Counter

from spectra_exp.presentation.colours import colour
from spectra_exp.presentation.html import Badge, Block, Cell, Chart, Content, Group, Notes, Row, Table
from spectra_exp.presentation.panels import IntervalRow, row_panel
from spectra_exp.presentation.text import bounds_text, interval_text, number_text
from spectra_exp.reporting import grid
from spectra_exp.reporting.declared import picture_sections
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.words import described, remarks, section_heading
from spectra_exp.reporting.tables import spec
from spectra_exp.reporting.tables.significance import outcomes
from spectra_exp.reporting.tables.verdicts import better_words

METRICS = ("val_loss", "load_cv", "max_vio", "expert_overlap")
KINDS = {"better": "good", "worse": "bad"}
LEAD = (
    "Mean over seeds with its 95 % t interval; an arrow says that the interval goes on, a hollow mark that the method "
    "is not causal. Below, each difference is paired over seeds with its own 95 % interval, and its p-value corrected "
    "by Holm's method over the family that table 13 states (*** < 0.001, ** < 0.01, * < 0.05)."
)


def headline_block(material: Material, significance: spec.Table) -> Block | None:
    """SPECTRA against the baselines; None without two finished rows of that study."""
    sections = picture_sections(material, "bars")
    bodies = [_section(s, significance) for s in sections if sum(bool(row.runs) for row in s.rows) > 1]
    return Block("headline", "SPECTRA against the baselines", LEAD, bodies) if bodies else None


def values_chart(section: Section, rows: list[grid.Row], names: list[str], metric: str) -> Chart:
    """The rows' intervals of one metric."""
    lines = []
    for row, name in zip(rows, names, strict=True):
        found = section.interval(row, metric)
        text, tip = interval_text(found) or "not measured", described(section, row, (metric,))
        lines.append(IntervalRow(name, colour(row.label), found, text, tip, section.causal(row)))
    label = f"{metric} of {len(rows)} rows, mean and 95 % interval"
    panel = row_panel(lines, metric + better_words(metric, " (", ")"))
    return Chart(panel, label, metric, " over seeds, mean ± half the 95 % interval")


def _section(section: Section, significance: spec.Table) -> Content:
    rows = sorted((row for row in section.rows if row.runs), key=lambda row: "SPECTRA" not in row.method)
    charts = [values_chart(section, rows, [row.label for row in rows], metric) for metric in METRICS]
    found = outcomes(significance, section)
    grids = [_pairs(section, row, rows, found) for row in rows if "SPECTRA" in row.method]
    notes = Notes(remarks(section, {row.label: row for row in rows}))
    return [section_heading(section), Group("charts", charts), notes, grids]


def _pairs(
    section: Section, spectra: grid.Row, rows: list[grid.Row], found: dict[tuple[str, str, str], spec.Tested]
) -> Table | None:
    """A line for each baseline: what the test says, and the difference with its interval."""
    against = [row for row in rows if any((spectra.label, row.label, m) in found for m in METRICS)]
    if not against:
        return None
    lines, sums = [], []
    for row in against:
        lines.append(Row([row.label, *(_outcome_cell(found.get((spectra.label, row.label, m))) for m in METRICS)]))
    for metric in METRICS:
        outcomes = [found.get((spectra.label, row.label, metric)) for row in against]
        words = Counter(outcome.verdict.partition(" ")[0] for outcome in outcomes if outcome)
        rest = len(against) - words["better"] - words["worse"]
        sums.append(f"better {words['better']}, worse {words['worse']}, else {rest}")
    foot = Row([f"of {len(against)}", *sums])
    caption = f"{spectra.label} − each baseline: difference [95 % interval]"
    return Table(caption, ["against", *METRICS], lines, foot=foot)


def _outcome_cell(outcome: spec.Tested | None) -> Cell:
    if outcome is None or not outcome.verdict:
        return Cell()
    kind = KINDS.get(outcome.verdict.partition(" ")[0], "plain")
    test = outcome.test
    numbers = " ".join(filter(None, [number_text(test.difference), bounds_text(test.ci_low, test.ci_high)]))
    return Cell(kind="pair", badges=[Badge(outcome.verdict, kind)], small=numbers, number=test.difference)
