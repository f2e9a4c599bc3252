"""The ablation forest plot: how far each ablation lies from Full, metric by metric."""

from __future__ import annotations

from spectra_exp.presentation.colours import colour
from spectra_exp.presentation.html import Block, Chart, Choice, Content, Group
from spectra_exp.presentation.panels import IntervalRow, row_panel
from spectra_exp.presentation.text import bounds_text, number_text, signed_text
from spectra_exp.reporting.declared import picture_sections
from spectra_exp.reporting.figures.labels import by_ablation
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.words import marks, section_heading
from spectra_exp.reporting.tables.significance import outcomes
from spectra_exp.reporting.tables.spec import Table, Tested
from spectra_exp.reporting.tables.verdicts import better_words
from spectra_exp.statistics.corrections import stars
from spectra_exp.statistics.intervals import Interval

LEAD = (
    "Difference of each ablation from Full, paired over seeds, with the 95 % interval of that comparison alone; stars "
    "by the Holm-corrected test of table 13, so that an interval may leave out zero without one. An arrow says that "
    "the interval goes on."
)


def ablation_block(material: Material, significance: Table) -> Block | None:
    """A forest plot for each rule and metric; None without a pair to compare."""
    bodies = []
    for section in picture_sections(material, "forest"):
        found = outcomes(significance, section)
        metrics = list(dict.fromkeys(metric for _, _, metric in found))
        panels = [(metric, _forests(section, metric, found)) for metric in metrics]
        if any(forests for _, forests in panels):
            bodies.append([section_heading(section), Choice("Metric", panels)])
    return Block("ablations", "Ablations", LEAD, bodies) if bodies else None


def _forests(section: Section, metric: str, found: dict[tuple[str, str, str], Tested]) -> Content:
    """A plot for each Full row there is (one per rule)."""
    charts = []
    for full in section.find({"ablation": "none"}):
        rows = [row for row in section.rows if (full.label, row.label, metric) in found and row.runs]
        if not rows or not full.runs:
            continue
        lines = [_line(section, row, full, metric, found[full.label, row.label, metric]) for row in rows]
        axis = f"{metric}, ablation − Full{better_words(metric, ' (', ')')}"
        label = f"Difference in {metric} of {len(rows)} ablations from {full.label}, with 95 % intervals"
        panel = row_panel(lines, axis, zero=True)
        charts.append(Chart(panel, label, full.label, f": difference in {metric} from Full"))
    return [Group("charts", charts)] if charts else []


def _line(section: Section, row: Row, full: Row, metric: str, outcome: Tested) -> IntervalRow:
    test = section.compare(row, full, metric)
    name, own = by_ablation(row), colour(row.label)
    if test.difference is None:
        return IntervalRow(name, own, None, test.note or "no common seed", name)
    signed = signed_text(test.difference)
    shown = " ".join(filter(None, [signed, stars(outcome.p_corrected) or (test.note if test.p is None else "")]))
    bounds = "" if test.ci_low is None else f"\n95 % interval {bounds_text(test.ci_low, test.ci_high)}"
    p = "" if outcome.p_corrected is None else f"\np (Holm) {number_text(outcome.p_corrected)}"
    said = ", ".join([f"n {test.n}", *marks(section, row)])
    words = f"{row.label}\n{metric} {signed}{bounds}{p}\n{said}"
    found = Interval(test.n, test.difference, test.ci_low, test.ci_high)
    return IntervalRow(name, own, found, shown, words, section.causal(row))
