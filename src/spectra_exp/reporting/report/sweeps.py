"""Pictures of the sweeps: heat maps over two settings, steps over one, intervals where settings have no order."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from spectra_exp.presentation.colours import PALETTE, colour
from spectra_exp.presentation.html import Block, Chart, Choice, Group, Heading, Notes, Text
from spectra_exp.presentation.panels import CellPanel, HeatCell, Mark, Spot, SpotPanel, at
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.declared import Picture, all_pictures
from spectra_exp.reporting.figures.labels import by_ablation, by_method
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material
from spectra_exp.reporting.report.headline import values_chart
from spectra_exp.reporting.report.words import described, remarks, setting_name
from spectra_exp.reporting.tables.verdicts import better_words

METRICS = ("val_loss", "load_cv", "max_vio", "expert_overlap", "expert_entropy_norm", "routing_consistency")
LEAD = "Means over seeds with 95 % intervals; choose the metric above each picture. Hollow marks are not causal."


def sweep_block(material: Material) -> Block | None:
    """A picture for each sweep with a finished run; None without any."""
    pictures = all_pictures(material.studies.values(), "curve", "heat", "rows")
    sections = [(picture, section) for picture in pictures for section in material.sections.get(picture.study, [])]
    bodies = [_section(material, p, section) for p, section in sections if any(row.runs for row in section.rows)]
    return Block("sweeps", "Sweeps and scaling", LEAD, Group("beside", bodies)) if bodies else None


def _section(material: Material, picture: Picture, section: Section) -> Group:
    drawn = {"heat": _heat_maps, "curve": _steps, "rows": _rows}[picture.kind]
    wanted = [m for m in METRICS if any(section.interval(row, m) for row in section.rows)]
    panels = [(metric, Group("charts", drawn(picture, section, metric))) for metric in wanted]
    unfinished = [row for row in section.rows if not row.runs]
    lines = [f"No finished run: {', '.join(setting_name(row) for row in unfinished)}."] if unfinished else []
    named = {f"{row.method}, {setting_name(row)}" if picture.apart else setting_name(row): row for row in section.rows}
    lines += remarks(section, {name: row for name, row in named.items() if row.runs})
    study = material.studies[picture.study]
    return Group(
        "sweep",
        [
            Heading(picture.title),
            Text(study.question, "aside", study.hypothesis),
            Text(section.title, "aside") if section.special else None,
            Choice("Metric", panels) if panels else Text("No metric was measured."),
            Notes(lines),
        ],
    )


def _heat_maps(picture: Picture, section: Section, metric: str) -> list[Chart]:
    """A map for each value that stands apart, in the same colours."""
    rows = [(row, section.interval(row, metric)) for row in section.rows]
    means = [found.mean for _, found in rows if found]
    charts = []
    for group, members in _groups(picture, section.rows).items():
        downs, acrosses = _values(members, picture.down), _values(members, picture.across[0])
        by_place = {(_value(row, picture.down), _value(row, picture.across[0])): row for row in members}
        cells = tuple(tuple(_heat_cell(section, by_place.get((d, a)), metric) for a in acrosses) for d in downs)
        caption = f"{metric}, {_last(picture.apart)} {group}" if picture.apart else metric
        label = f"Heat map of {caption} over {_last(picture.down)} and {_last(picture.across[0])}"
        names = _last(picture.across[0]), _last(picture.down)
        panel = CellPanel(*names, tuple(acrosses), tuple(downs), cells, (min(means), max(means)))
        charts.append(Chart(panel, label, metric, caption.removeprefix(metric) + better_words(metric, ", ")))
    return charts


def _heat_cell(section: Section, row: Row | None, metric: str) -> HeatCell:
    found = section.interval(row, metric) if row else None
    if row is None or found is None:
        return HeatCell(None, "", f"{row.label if row else 'not in the study'}\nnot measured")
    flag = " ○" if not section.causal(row) else ""
    return HeatCell(found.mean, number_text(found.mean) + flag, described(section, row, (metric,), setting_name(row)))


def _steps(picture: Picture, section: Section, metric: str) -> list[Chart]:
    names = list(dict.fromkeys(_step_name(picture, row) for row in section.rows))
    groups = _groups(picture, section.rows)
    spots: list[Spot] = []
    joints: list[tuple[int, int]] = []
    key = []
    for place, (group, members) in enumerate(groups.items()):
        # A method has one colour, whatever its settings.
        is_method = picture.apart in ("", "baseline")
        own = colour(members[0].label) if is_method else PALETTE[place % len(PALETTE)]
        key.append((group, own))
        shift = 0.06 * (place - (len(groups) - 1) / 2)
        before, last = None, members[0]
        for step, row in sorted(((names.index(_step_name(picture, row)), row) for row in members), key=itemgetter(0)):
            found = section.interval(row, metric)
            if found is None:
                continue
            if before == step - 1 and _on_one_scale(last, row):
                joints.append((len(spots) - 1, len(spots)))
            tip = described(section, row, (metric,))
            spots.append(Spot(group, Mark(own), at(step + shift), found, False, section.causal(row), tip))
            before, last = step, row
    axis = ", ".join(_last(name) for name in picture.across)
    ticks = tuple((float(place), name) for place, name in enumerate(names))
    panel = SpotPanel("", axis, metric, tuple(spots), x_ticks=ticks, joints=tuple(joints), reach="intervals")
    label, caption = f"{metric} over {axis}, means with 95 % intervals", f" over {axis}{better_words(metric, ', ')}"
    return [Chart(panel, label, metric, caption, key if len(key) > 1 else ())]


def _rows(picture: Picture, section: Section, metric: str) -> list[Chart]:
    rows = [row for row in section.rows if row.runs]
    return [values_chart(section, rows, [setting_name(row) for row in rows], metric)]


def _groups(picture: Picture, rows: list[Row]) -> dict[str, list[Row]]:
    """The rows by what stands apart: the method, an ablation, or a setting's value."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        named = {"ablation": by_ablation, "baseline": by_method, "": by_method}.get(picture.apart)
        groups.setdefault(named(row) if named else _value(row, picture.apart), []).append(row)
    return groups


def _step_name(picture: Picture, row: Row) -> str:
    return " ".join(row.key[key] for key in picture.across if key in row.key) or row.label


def _on_one_scale(a: Row, b: Row) -> bool:
    """Whether the configurations of two steps differ in numbers alone."""
    assert a.resolved and b.resolved, "the rows of a study have configurations"
    found = [*a.resolved.differences(b.resolved).values(), *b.resolved.differences(a.resolved).values()]
    return all(type(value) in (int, float) for value in found)


def _values(rows: list[Row], key: str) -> list[str]:
    """The key's values, numbers by size."""
    found = {_value(row, key): row.values.get(key) for row in rows}
    numbers: dict[str, Any] = {text: value for text, value in found.items() if type(value) in (int, float)}
    return [*sorted(numbers, key=numbers.__getitem__), *(text for text in found if text not in numbers)]


def _value(row: Row, key: str) -> str:
    return row.key.get(key, "")


def _last(key: str) -> str:
    return key.rpartition(".")[2]
