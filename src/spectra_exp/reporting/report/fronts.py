"""Balance against loss: every row of a study as a point, with the front of those that no other betters."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from spectra_exp.presentation.colours import colour, ink
from spectra_exp.presentation.html import Badge, Block, Cell, Chart, Choice, Group, Row, Table
from spectra_exp.presentation.panels import Mark, Spot, SpotPanel
from spectra_exp.presentation.text import interval_text
from spectra_exp.reporting import grid
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.words import described, marks, setting_name

X, Y = "load_cv", "val_loss"
FIRST = ("baselines", "core")
LEAD = (
    "Down and to the left is better in both. Ringed points are on the front of these two: no other row is at least as "
    "good in both means and better in one, among causal rows with the data and steps that most rows have, over the "
    "same seeds. Hollow points are not causal. (The tables' fronts are of three metrics.) Point or tab to a mark for "
    "its figures."
)


def front_block(material: Material) -> Block | None:
    """A picture for each section with two measured rows or more; None without any."""
    studies = sorted(filter(None, material.sections), key=lambda name: (name not in FIRST, name))
    panels = []
    for study in studies:
        for section in material.sections[study]:
            rows = [row for row in section.rows if section.interval(row, X) and section.interval(row, Y)]
            if len(rows) > 1:
                panels.append((f"{study}, {section.title}", _picture(section, rows)))
    return Block("front", "Balance against loss", LEAD, Choice("Study", panels)) if panels else None


def front_chart(section: Section, rows: list[grid.Row], key: Sequence[tuple[str, str]] = ()) -> Chart:
    """The rows, which have both metrics, as points with their intervals; `key`: names with colours."""
    front = section.front(rows, (X, Y))
    spots = tuple(_spot(section, row, on) for row, on in zip(rows, front, strict=True))
    of = section.study.name if section.study else "all runs"
    label = f"{Y} against {X} of {len(rows)} rows of {of}; {sum(front)} on the front"
    panel = SpotPanel("", f"{X} (lower is better)", f"{Y} (lower is better)", spots, reach="intervals")
    caption = f"{Y} against {X}, means over seeds with 95 % intervals: {of}, {section.title}"
    return Chart(panel, label, caption=caption, key=key)


def _picture(section: Section, rows: list[grid.Row]) -> Group:
    front = section.front(rows, (X, Y))
    # Rows of one method are told apart by their settings alone.
    named = setting_name if len({row.method for row in rows}) == 1 else attrgetter("label")
    lines = [_line(section, row, named(row), on) for row, on in zip(rows, front, strict=True)]
    key = Table("The points", ["row", Y, X, "n", "marks"], lines, (Y, X, "n"))
    return Group("beside", [front_chart(section, rows), key])


def _spot(section: Section, row: grid.Row, on_front: bool) -> Spot:
    x, y = section.interval(row, X), section.interval(row, Y)
    assert x and y, "the rows of a front have both metrics"
    tip = described(section, row, (Y, X)) + ("\non the front" if on_front else "")
    link = f"#cell-{_cell_id(section, row)}"
    return Spot(row.label, Mark(colour(row.label)), x, y, on_front, section.causal(row), tip, link)


def _line(section: Section, row: grid.Row, name: str, on_front: bool) -> Row:
    badges = [Badge("front", "good")] if on_front else []
    badges += [Badge(mark, "warn") for mark in marks(section, row)]
    return Row(
        [
            Cell(name, href=f"#cell-{_cell_id(section, row)}", swatch=ink(row.label)),
            *(Cell(interval_text(section.interval(row, m)), "n") for m in (Y, X)),
            Cell(str(len(row.runs)), "n"),
            Cell(badges=badges),
        ]
    )


def _cell_id(section: Section, row: grid.Row) -> str:
    return section.run(row, min(row.runs))["cell_id"]
