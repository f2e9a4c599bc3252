"""The rows of a study: its cells in the order of its file, and the finished runs of each."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spectra_exp.reporting.collect import Collected
from spectra_exp.reporting.derived import DERIVED
from spectra_exp.reporting.methods import METHOD_FACTORS, method_name, setting_text
from spectra_exp.reporting.pairing import GROUP_KEYS, PAIRED, comparable_groups, pair_problem, pairing
from spectra_exp.statistics.comparison import Comparison, compare
from spectra_exp.studies.definition import Study
from spectra_exp.studies.expand import meaning, study_jobs
from spectra_exp.studies.ledger import Expected, Launch

# What rows must have, by factor: a value, one of several, or of those that a function finds in conf/.
Values = str | Iterable[str] | Callable[[], Iterable[str]]
Choice = Mapping[str, Values]

# Keys that say which run of a cell a line is, and for whom.
NOT_OF_A_CELL = ("study", "seed")
# Settings are chosen on these seeds, so they cannot test what was chosen (docs/metrics.md).
CHOOSING_SEEDS = range(100, 103)
CHOSEN_ON = "seeds 100 to 102, on which settings are chosen"
# Groups and keys that change no result.
NO_RESULT = ("launch", "logger", "force", "refresh", "outputs", "debug", "search")


@dataclass
class Row:
    """One cell of a study.

    `key`: the value of each factor. `expected`: what a launch wants, by seed; empty when never launched. `overrides`:
    the line that makes it, without study and seed. `runs`: the run id of each completed seed.
    """

    key: dict[str, str]
    label: str
    overrides: list[str]
    expected: dict[int, Expected] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method alone, without settings."""
        return method_name(self.key)

    def matches(self, wanted: Choice) -> bool:
        """Whether each wanted factor has the value, or one of the values; 0.10 is 0.1."""
        return all(
            key in self.key and any(meaning(self.key[key]) == meaning(str(v)) for v in _several(values))
            for key, values in wanted.items()
        )


@dataclass
class Section:
    """The rows of a study that share what was typed beside its own values (`context`).

    `unpaired`: why the runs of a cell do not pair with the others of the section, by cell id; only where every cell
    of a group of comparable runs is a row (there `study` is empty).
    """

    study: str
    context: tuple[str, ...]
    factors: tuple[str, ...]
    rows: list[Row]
    collected: Collected
    unpaired: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What was typed, in words."""
        return " ".join(self.context) or "as in its file"

    def find(self, wanted: Choice) -> list[Row]:
        """The rows with these values."""
        return [row for row in self.rows if row.matches(wanted)]

    def values(self, row: Row, metric: str) -> dict[int, float]:
        """The metric's value by seed; seeds without a finite one are absent."""
        if metric in DERIVED:
            return DERIVED[metric](self, row)
        found = {seed: self.collected.figures.get((run, metric)) for seed, run in row.runs.items()}
        return {seed: pair[0] for seed, pair in found.items() if pair is not None and math.isfinite(pair[0])}

    def floor(self, row: Row, metric: str) -> float | None:
        """The mean chance floor over seeds, None without one."""
        found = [self.collected.figures.get((run, metric), (0.0, math.nan))[1] for run in row.runs.values()]
        finite = [value for value in found if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else None

    def run(self, row: Row, seed: int) -> dict[str, Any]:
        """The run of a seed, as a row of `Collected.runs`."""
        return self.collected.by_run[row.runs[seed]]

    def pair_problem(self, a: Row, b: Row) -> str | None:
        """Why the two rows may not be compared at one of their common seeds, or None."""
        for seed in sorted(a.runs.keys() & b.runs.keys()):
            if problem := pair_problem(self.run(a, seed), self.run(b, seed)):
                return f"{problem} at seed {seed}"
        return None

    def causal(self, row: Row) -> bool:
        """Whether every run of the row is known to be causal."""
        return all(self.run(row, seed)["causal"] is True for seed in row.runs)

    def ranked(self, rows: Sequence[Row]) -> list[bool]:
        """Whether each row may be called the best of them: causal, on the seeds that most of the rows have, and scored
        on the same data and set after as many steps as most of them."""
        kinds = [self._kind(row) for row in rows]
        known = Counter(kind for kind in kinds if kind is not None)
        usual = max(known, key=lambda kind: (known[kind], kind), default=None)
        return [kind is not None and kind == usual for kind in kinds]

    def _kind(self, row: Row) -> tuple[Any, ...] | None:
        """What rows must share to be ranked; None for one without runs, or not known to be causal."""
        runs = [self.run(row, seed) for seed in sorted(row.runs)]
        if not runs or any(run["causal"] is not True for run in runs):
            return None
        return (tuple(sorted(row.runs)), *(tuple(sorted({str(run[key]) for run in runs})) for key in GROUP_KEYS))

    def compare(self, a: Row, b: Row, metric: str) -> Comparison:
        """a − b over seeds; empty, with the reason as its note, for runs that may not be compared."""
        if problem := self.pair_problem(a, b):
            return replace(compare({}, {}), note=problem)
        return compare(self.values(a, metric), self.values(b, metric))


def study_sections(study: Study, launches: Iterable[Launch], collected: Collected) -> list[Section]:
    """The study's sections, the one as in its file first; one of empty rows when it was never launched."""
    factors = study_factors(study)
    own = [launch for launch in launches if launch.study == study.name]
    found: dict[tuple[str, ...], dict[tuple[tuple[str, str], ...], Row]] = {}
    twins = {(run["cell_id"], run["seed"]): run_id for run_id, run in collected.by_run.items()}
    for launch in own:
        for run in launch.runs:
            # A copy under another name stands for the run that it was made of.
            finished = run.run_id if run.run_id in collected.by_run else twins.get((run.cell_id, run.seed))
            for line in (run.overrides, *run.also):
                row = _row_of(line, study, factors, found)
                row.expected[run.seed] = run
                if finished is not None:
                    row.runs[run.seed] = finished
    if not own:
        for line in study_jobs(study, []):
            _row_of(line, study, factors, found)
    order = _file_order(study)
    sections = [
        Section(study.name, context, factors, sorted(rows.values(), key=lambda r: _place(r, order)), collected)
        for context, rows in found.items()
    ]
    return sorted(sections, key=lambda section: section.context)


def cell_sections(collected: Collected) -> list[Section]:
    """Every cell of completed runs as a row, a section for each group of comparable runs."""
    groups = comparable_groups(collected.runs)
    reasons = pairing(collected.runs.assign(comparable_group=collected.runs["run_id"].map(groups)))
    found: dict[int, dict[str, Row]] = {}
    titles: dict[int, str] = {}
    for run_id, run in sorted(collected.by_run.items()):
        group = groups[run_id]
        data, evaluation = (str(run[key])[:8] for key in GROUP_KEYS[:2])
        titles[group] = f"Group {group}: {run['max_steps']} steps, data {data}, evaluation {evaluation}"
        row = found.setdefault(group, {}).setdefault(run["cell_id"], Row({}, run["label"], []))
        row.runs.setdefault(run["seed"], run_id)
    sections = []
    for group, rows in sorted(found.items()):
        _tell_apart(rows.values(), collected)
        unpaired = {cell: reasons[group, cell] for cell in rows if reasons[group, cell] != PAIRED}
        by_label = sorted(rows, key=lambda cell: (rows[cell].label, cell))
        sections.append(Section("", (titles[group],), (), [rows[cell] for cell in by_label], collected, unpaired))
    return sections


def _tell_apart(rows: Iterable[Row], collected: Collected) -> None:
    """Add to labels that several cells share what was typed for one of these cells and not for all."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(row.label, []).append(row)
    for label, same in alike.items():
        typed = [_typed(collected.by_run[min(row.runs.values())]["command"]) for row in same]
        common = set.intersection(*map(set, typed))
        for row, own in zip(same, typed, strict=True):
            # What the label says already is not said twice.
            row.label = " ".join([label, *(part for part in own if part not in common and part not in label)])


def _typed(command: str | None) -> list[str]:
    """The overrides of a run's command that belong to its cell."""
    words = shlex.split(command or "")
    return [w for w in words if "=" in w and _of_a_cell(w.split("=")[0])]


def _of_a_cell(key: str) -> bool:
    """Whether a typed key tells cells apart."""
    return key not in NOT_OF_A_CELL and key.split(".")[0] not in NO_RESULT


def study_factors(study: Study) -> tuple[str, ...]:
    """The keys that tell the study's rows apart: the method's first, then what its grid varies."""
    varied = [key for block in study.blocks for key in block.axes()]
    set_methods = [key for block in study.blocks for key in block.settings if key in METHOD_FACTORS]
    keys = list(dict.fromkeys([*set_methods, *varied]))
    methods = [key for key in METHOD_FACTORS if key in keys]
    return (*methods, *(key for key in keys if key not in methods))


def _row_of(
    line: list[str],
    study: Study,
    factors: tuple[str, ...],
    found: dict[tuple[str, ...], dict[tuple[tuple[str, str], ...], Row]],
) -> Row:
    """The row that a line of overrides belongs to, made if it is the first of it."""
    given = dict(part.split("=", 1) for part in line)
    key = {factor: given[factor] for factor in factors if factor in given}
    settings = {(k, meaning(v)) for block in study.blocks for k, v in block.settings.items()}
    context = tuple(
        sorted(
            f"{k}={v}" for k, v in given.items()
            if k not in key and _of_a_cell(k) and (k, meaning(v)) not in settings
        )
    )  # fmt: skip
    if given.get("seed", "").isdecimal() and int(given["seed"]) in CHOOSING_SEEDS:
        # Never averaged or tested with the seeds that settings are tested on.
        context = (*context, CHOSEN_ON)
    same = tuple(sorted((k, str(meaning(v))) for k, v in key.items()))
    rows = found.setdefault(context, {})
    if same not in rows:
        overrides = [part for part in line if part.split("=", 1)[0] not in NOT_OF_A_CELL]
        rows[same] = Row(key, row_label(key, study), overrides)
    return rows[same]


def row_label(key: Mapping[str, str], study: Study) -> str:
    """The method and the settings by which rows of the study differ."""
    settings = [setting_text(k, v) for k, v in key.items() if k not in METHOD_FACTORS]
    return ", ".join([method_name(key), *settings])


def _file_order(study: Study) -> dict[str, list[object]]:
    """For each factor its values in the order of the file."""
    order: dict[str, list[object]] = {}
    for block in study.blocks:
        for cell in block.cells():
            for key, value in cell.items():
                known = order.setdefault(key, [])
                if meaning(value) not in known:
                    known.append(meaning(value))
    return order


def _place(row: Row, order: Mapping[str, list[object]]) -> tuple[Any, ...]:
    """Rows as the file has them; values it does not have come after, by size."""
    place: list[Any] = []
    for key, known in order.items():
        value = meaning(row.key[key]) if key in row.key else None
        if value is None:
            place.append((-1, 0.0, ""))
        elif value in known:
            place.append((known.index(value), 0.0, ""))
        else:
            number = value if isinstance(value, float) else math.inf
            place.append((len(known), number, str(value)))
    return tuple(place)


def _several(values: Values) -> Iterable[str]:
    values = values() if callable(values) else values
    return (values,) if isinstance(values, (str, int, float)) else values
