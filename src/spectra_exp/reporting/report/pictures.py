"""What the page begins with: pictures of the runs at hand, whatever study asked for them."""

from __future__ import annotations

from spectra_exp.presentation.colours import colour
from spectra_exp.presentation.html import Block, Chart, Choice, Content, Group, Notes, Text
from spectra_exp.reporting.figures.labels import by_row
from spectra_exp.reporting.figures.own import LOSS, some_groups, some_rows
from spectra_exp.reporting.figures.training import Curve, curve_panel, method_marks
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.fronts import X, Y, front_chart
from spectra_exp.reporting.report.loads import load_chart
from spectra_exp.reporting.report.words import remarks
from spectra_exp.reporting.sentence import sentence_of

LEAD = (
    "Loss over training with bands of 95 % over seeds, loss against balance with 95 % intervals, and the load of each "
    "layer's experts over the even share, the busiest first. Hollow marks are not causal. Point or tab to a mark for "
    "its figures."
)


def picture_block(material: Material) -> Block | None:
    """A picture of each kind for each group of comparable runs; None without runs."""
    groups, left_out = some_groups(material.own)
    panels = [(section.title, _pictures(section)) for section in groups]
    if not panels:
        return None
    said = sentence_of(material.own)
    content = [Text(said, "finding") if said else None, Choice("Runs", panels), Notes(left_out)]
    return Block("pictures", "These runs", LEAD, content)


def _pictures(section: Section) -> Content:
    rows, left_out = some_rows(section.rows)
    charts = [_loss(section, rows)]
    placed = [row for row in rows if section.interval(row, X) and section.interval(row, Y)]
    if placed:
        charts.append(front_chart(section, placed, [(row.label, colour(row.label)) for row in placed]))
    loads = [chart for row in rows if (chart := load_chart(section, row)) is not None]
    notes = [*left_out, *remarks(section, {row.label: row for row in rows})]
    return [Group("charts", charts), Group("charts small", loads) if loads else None, Notes(notes)]


def _loss(section: Section, rows: list[Row]) -> Chart:
    panel = curve_panel(Curve(LOSS), section, rows, by_row, method_marks, "")
    label = f"{LOSS} over training of {len(rows)} rows, means over seeds with bands of 95 %"
    return Chart(panel, label, LOSS, " over training")
