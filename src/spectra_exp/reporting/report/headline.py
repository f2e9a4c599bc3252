"""The headline: SPECTRA beside every baseline, and what the corrected tests say of each difference."""

from __future__ import annotations

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
from spectra_exp.reporting.tables.verdicts import direction

METRICS = ("val_loss", "load_cv", "max_vio", "expert_overlap")
KINDS = {"better": "good", "worse": "bad"}
LEAD = (
    "Mean over seeds with its 95 % t interval; an arrow says that the interval goes on, a hollow mark that the method "
    "is not causal. Below, each difference is paired over seeds with its own 95 % interval, and its p-value corrected "
    "by Holm's method over the family that table 13 states (*** < 0.001, ** < 0.01, * < 0.05)."
)


def headline_block(material: Material, significance: spec.Table) -> Block | None:
    """SPECTRA against the baselines; None without two finished rows of that study."""
    bodies = [
        _section(section, significance)
        for section in picture_sections(material, "bars")
        if sum(bool(row.runs) for row in section.rows) > 1
    ]
    if not bodies:
        return None
    return Block("headline", "SPECTRA against the baselines", LEAD, bodies)


def values_chart(section: Section, rows: list[grid.Row], names: list[str], metric: str) -> Chart:
    """The rows' intervals of one metric."""
    lines = []
    for row, name in zip(rows, names, strict=True):
        found = section.interval(row, metric)
        text, tip = interval_text(found) or "not measured", described(section, row, (metric,))
        lines.append(IntervalRow(name, colour(row.label), found, text, tip, section.causal(row)))
    better = direction(metric)
    label = f"{metric} of {len(rows)} rows, mean and 95 % interval"
    panel = row_panel(lines, metric if better == "none" else f"{metric} ({better} is better)")
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
    lines, tally = [], {metric: dict.fromkeys(("better", "worse", "else"), 0) for metric in METRICS}
    for row in against:
        cells: list[Cell | str] = [row.label]
        for metric in METRICS:
            outcome = found.get((spectra.label, row.label, metric))
            cells.append(_outcome_cell(outcome))
            word = outcome.verdict.partition(" ")[0] if outcome else ""
            tally[metric][word if word in KINDS else "else"] += 1
        lines.append(Row(cells))
    sums = [f"better {tally[m]['better']}, worse {tally[m]['worse']}, else {tally[m]['else']}" for m in METRICS]
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
