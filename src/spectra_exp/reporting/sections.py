"""Which runs stand in which rows: those of a study, in the order of its file, or every cell that there is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spectra_exp.config.names import METHOD_FACTORS, own_settings, run_label, setting_text
from spectra_exp.config.resolved import Compositions, Resolved, of_the_cell, resolved_config
from spectra_exp.reporting.collect import Collected
from spectra_exp.reporting.grid import CHOOSING_SEEDS, Row, Section
from spectra_exp.runs.pairing import GROUP_KEYS, PAIRED, comparable_groups, pairing
from spectra_exp.studies.cells import Place, StudyCells, row_label
from spectra_exp.studies.decide import Design
from spectra_exp.studies.definition import Study
from spectra_exp.studies.expand import file_seeds
from spectra_exp.studies.ledger import Expected, Launch


def study_sections(
    cells: StudyCells, launches: Sequence[Launch], collected: Collected, configurations: Mapping[str, Resolved]
) -> list[Section]:
    """The study's sections, the one as in its file first; one of empty rows when it was never launched.

    A run counts when its summary names the study or a launch of the study asked for it; for a study that was never
    launched, when it is one of its cells at one of its file's seeds. `configurations`: what each cell id stands for.
    """
    study, order = cells.study, _file_order(cells.study)
    found: dict[tuple[tuple[str, ...], bool], dict[tuple[tuple[str, str], ...], Row]] = {}
    own = [launch for launch in launches if launch.study == study.name]

    def row(place: Place, seed: int, resolved: Resolved) -> Row:
        rows = found.setdefault((place.context, seed in CHOOSING_SEEDS), {})
        values = dict(place.key)
        made = Row(values, row_label(values), resolved)
        return rows.setdefault(tuple(made.key.items()), made)

    designs = designs_of(launches, collected)
    twins = _twins(collected)
    for launch in own:
        for run in launch.runs:
            finished = _finished(run, collected, twins)
            resolved = configurations.get(run.cell_id or "") or cells.composed(of_the_cell(run.overrides))
            if resolved is None:
                # Overrides that are no longer any stand nowhere.
                continue
            for place in cells.places(resolved):
                own_row = row(place, run.seed, resolved)
                own_row.designs |= set() if launch.design is None else {launch.design}
                own_row.expected[run.seed] = run
                if finished is not None:
                    own_row.runs[run.seed] = finished
    seeds: Sequence[int] = () if own else file_seeds(study)
    for run_id, known in collected.by_run.items():
        resolved, seed = configurations.get(known["cell_id"]), known["seed"]
        named = study.name in known["studies"]
        if resolved is not None and (named or seed in seeds):
            for place in cells.places(resolved) if named else cells.exact(resolved):
                own_row = row(place, seed, resolved)
                # What the study asked for itself has the seeds that it asked for.
                if own_row.runs.setdefault(seed, run_id) == run_id and seed not in own_row.expected:
                    own_row.designs |= designs.get(run_id, set())
    for cell in () if own else cells.own:
        row(Place(cell.key), seeds[0], cell.resolved)
    sections = []
    for (context, choosing), rows in found.items():
        ordered = sorted(rows.values(), key=lambda r: _place(r, order))
        sections.append(Section(study, context, cells.factors, ordered, collected, choosing))
    return sorted(sections, key=lambda section: (section.context, section.choosing))


def designs_of(launches: Iterable[Launch], collected: Collected) -> dict[str, set[Design]]:
    """For each completed run the designs by which its seed was asked for, of any study."""
    found: dict[str, set[Design]] = {}
    twins = _twins(collected)
    for launch in launches:
        for run in launch.runs:
            if launch.design is not None and (run_id := _finished(run, collected, twins)) is not None:
                found.setdefault(run_id, set()).add(launch.design)
    return found


def _twins(collected: Collected) -> dict[tuple[str | None, int], str]:
    return {(run["cell_id"], run["seed"]): run_id for run_id, run in collected.by_run.items()}


def _finished(run: Expected, collected: Collected, twins: Mapping[tuple[str | None, int], str]) -> str | None:
    """The completed run that was asked for; a copy under another name stands for the run that it was made of."""
    return run.run_id if run.run_id in collected.by_run else twins.get((run.cell_id, run.seed))


def configurations_of(collected: Collected) -> dict[str, Resolved]:
    """What the completed runs of each cell id are configured as, of those whose config.yaml can be read."""
    found: dict[str, Resolved] = {}
    for run_id, run in sorted(collected.by_run.items()):
        if run["cell_id"] not in found and (config := collected.run(run_id).config) is not None:
            found[run["cell_id"]] = resolved_config(config)
    return found


def cell_sections(
    collected: Collected,
    configurations: Mapping[str, Resolved],
    compositions: Compositions,
    launches: Iterable[Launch] = (),
) -> list[Section]:
    """Every cell of completed runs as a row, a section for each group of comparable runs."""
    designs = designs_of(launches, collected)
    groups = comparable_groups(collected.runs)
    reasons = pairing(collected.runs.assign(comparable_group=collected.runs["run_id"].map(groups)))
    settings = {cell: own_settings(resolved, compositions) for cell, resolved in configurations.items()}
    labels = {cell: run_label(resolved, settings[cell]) for cell, resolved in configurations.items()}
    found: dict[int, dict[str, Row]] = {}
    titles: dict[int, str] = {}
    for run_id, run in sorted(collected.by_run.items()):
        group = groups[run_id]
        data, evaluation = (str(run[key])[:8] for key in GROUP_KEYS[:2])
        titles[group] = f"Group {group}: {run['max_steps']} steps, data {data}, evaluation {evaluation}"
        made = Row(run_factors(run), labels.get(run["cell_id"], run["label"]))
        row = found.setdefault(group, {}).setdefault(run["cell_id"], made)
        row.runs.setdefault(run["seed"], run_id)
        row.designs |= designs.get(run_id, set())
    sections = []
    for group, rows in sorted(found.items()):
        _tell_apart(rows, settings)
        unpaired = {cell: reasons[group, cell] for cell in rows if reasons[group, cell] != PAIRED}
        by_label = sorted(rows, key=lambda cell: (rows[cell].label, cell))
        own = [rows[cell] for cell in by_label]
        sections.append(Section(None, (titles[group],), (), own, collected, unpaired=unpaired))
    return sections


def run_factors(run: Mapping[str, Any]) -> dict[str, str]:
    """The factors of a run's method, as rows of studies have them."""
    return {factor: run[factor] for factor in METHOD_FACTORS if run[factor] not in (None, "none")}


def _tell_apart(rows: Mapping[str, Row], settings: Mapping[str, Mapping[str, str]]) -> None:
    """Add to labels that several cells share the settings that not all of them have."""
    alike: dict[str, list[str]] = {}
    for cell, row in rows.items():
        alike.setdefault(row.label, []).append(cell)
    for label, cells in alike.items():
        own = {cell: {setting_text(key, value) for key, value in settings.get(cell, {}).items()} for cell in cells}
        common = set.intersection(*own.values())
        for cell in cells:
            rows[cell].label = ", ".join([label, *sorted(own[cell] - common)])


def _file_order(study: Study) -> dict[str, list[str]]:
    """For each factor its values in the order of the file."""
    order: dict[str, list[str]] = {}
    for block in study.blocks:
        for cell in block.cells():
            for key, value in cell.items():
                known = order.setdefault(key, [])
                if value not in known:
                    known.append(value)
    return order


def _place(row: Row, order: Mapping[str, list[str]]) -> tuple[Any, ...]:
    """Rows as the file has them; values it does not have come after, by size."""
    place: list[Any] = []
    for key, known in order.items():
        if key not in row.key:
            place.append((-1, 0.0, ""))
        elif row.key[key] in known:
            place.append((known.index(row.key[key]), 0.0, ""))
        else:
            value = row.values[key]
            place.append((len(known), value if isinstance(value, (int, float)) else math.inf, row.key[key]))
    return tuple(place)
