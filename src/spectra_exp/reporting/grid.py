"""A row of a study with its finished runs, and the rows that may stand beside one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from spectra_exp.config.names import method_name
from spectra_exp.config.resolved import Resolved
from spectra_exp.config.typed import value_text
from spectra_exp.foundations.files import short_path
from spectra_exp.measure.others import figure
from spectra_exp.reporting.collect import Collected, base_name
from spectra_exp.runs.config_file import setting
from spectra_exp.runs.pairing import GROUP_KEYS, pair_problem
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.comparison import Comparison, compare, join_notes
from spectra_exp.statistics.intervals import Interval, mean_interval
from spectra_exp.statistics.pareto import pareto_front
from spectra_exp.studies.cells import Choice, has_values
from spectra_exp.studies.decide import Design
from spectra_exp.studies.definition import Study
from spectra_exp.studies.ledger import Expected

# Settings are chosen on these seeds, so they cannot test what was chosen (docs/metrics.md).
CHOOSING_SEEDS = range(100, 103)
SEVERAL_DESIGNS = "launched with several launch.until_decided or launch.max_seeds"
CHOSEN_ON = "seeds 100 to 102, on which settings are chosen"
AS_IN_ITS_FILE = "as in its file"
SWITCH, DENSE = {"baseline": "switch_top2"}, {"baseline": "dense"}
# Losses this close to each other leave no gap to close.
LEAST_GAP = 1e-9


@dataclass
class Row:
    """One cell of a study.

    `values`: the value of each factor. `resolved`: the configuration of one of its runs, None where a row is of another
    kind. `expected`: what a launch wants, by seed; empty when never launched. `runs`:
    the run id of each completed seed. `designs`: by which seeds were added until comparisons were decided; none where
    their number was given.
    """

    values: dict[str, Any]
    label: str
    resolved: Resolved | None = None
    expected: dict[int, Expected] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)
    designs: set[Design] = field(default_factory=set)

    @cached_property
    def key(self) -> dict[str, str]:
        """The values as they are printed."""
        return {factor: value_text(value) for factor, value in self.values.items()}

    @property
    def method(self) -> str:
        """The method alone, without settings."""
        return method_name(self.key)

    def setting(self, key: str) -> Any:
        """What its runs have at a dotted key; None where they have none."""
        return self.resolved.at(key) if self.resolved else None

    def matches(self, wanted: Choice) -> bool:
        """Whether each wanted factor has the value, or one of the values."""
        return has_values(self.key, wanted)


@dataclass
class Section:
    """The rows of a study that share what their runs have beside its own settings (`context`, as `key=value`).

    `study`: None where every cell of a group of comparable runs is a row. `choosing`: whether they are of the seeds on
    which settings are chosen. `unpaired`: why the runs of a cell do not pair with the others of the section, by cell
    id; only where there is no study.
    """

    study: Study | None
    context: tuple[str, ...]
    factors: tuple[str, ...]
    rows: list[Row]
    collected: Collected
    choosing: bool = False
    unpaired: dict[str, str] = field(default_factory=dict)

    @property
    def special(self) -> bool:
        """Whether it is other than the study's file says."""
        return bool(self.context) or self.choosing

    @property
    def title(self) -> str:
        """What tells it from the study's file."""
        return " ".join([*self.context, *([CHOSEN_ON] if self.choosing else [])]) or AS_IN_ITS_FILE

    def asked(self, *words: str) -> str:
        """The command that runs the study with these overrides; empty where no study asked for the rows."""
        return "" if self.study is None else self.study.asked(*words)

    @property
    def typed(self) -> list[str]:
        """The context as it can be typed: files of data by where they lie for a run of the section."""
        run_id = next((run_id for row in self.rows for run_id in row.runs.values()), None)
        config = (self.collected.run(run_id).config if run_id else None) or {}
        found = []
        for key, _, told in (word.partition("=") for word in self.context):
            value = setting(config, key)
            is_file = isinstance(value, str) and short_path(value) == told
            found.append(f"{key}={value if is_file else told}")
        return found

    def find(self, wanted: Choice) -> list[Row]:
        """The rows with these values."""
        return [row for row in self.rows if row.matches(wanted)]

    def values(self, row: Row, metric: str) -> dict[int, float]:
        """The metric's value by seed; seeds without a finite one are absent."""
        if metric in DERIVED:
            return DERIVED[metric](self, row)
        return self._finite(row, metric, 0)

    def measured(self, rows: Iterable[Row]) -> set[str]:
        """The names of the figures that the rows' runs have."""
        runs = {run for row in rows for run in row.runs.values()}
        return {metric for run, metric in self.collected.figures if run in runs}

    def interval(self, row: Row, metric: str) -> Interval | None:
        """The metric's mean over seeds with its interval, None without a value."""
        return mean_interval(self.values(row, metric).values())

    def floor(self, row: Row, metric: str) -> float | None:
        """The mean chance floor over seeds, None without one."""
        found = self.floors(row, metric).values()
        return sum(found) / len(found) if found else None

    def floors(self, row: Row, metric: str) -> dict[int, float]:
        """The metric's chance floor by seed; seeds without one are absent."""
        return self._finite(row, metric, 1)

    def _finite(self, row: Row, metric: str, place: Literal[0, 1]) -> dict[int, float]:
        """Of the value and the floor the one at `place`, by seed."""
        found = {seed: self.collected.figures.get((run, metric)) for seed, run in row.runs.items()}
        return {seed: pair[place] for seed, pair in found.items() if pair is not None and math.isfinite(pair[place])}

    def run(self, row: Row, seed: int) -> dict[str, Any]:
        """The run of a seed, as a row of `Collected.runs`."""
        return self.collected.by_run[row.runs[seed]]

    def runs(self, row: Row) -> list[dict[str, Any]]:
        """The row's runs by seed, each as a row of `Collected.runs`."""
        return [self.run(row, seed) for seed in sorted(row.runs)]

    def stored(self, row: Row) -> dict[int, StoredRun]:
        """The folder of each seed's run."""
        return {seed: self.collected.run(row.runs[seed]) for seed in sorted(row.runs)}

    def pair_problem(self, a: Row, b: Row) -> str | None:
        """Why the two rows may not be compared at one of their common seeds, or None."""
        for seed in sorted(a.runs.keys() & b.runs.keys()):
            if problem := pair_problem(self.run(a, seed), self.run(b, seed)):
                return f"{problem} at seed {seed}"
        return None

    def causal(self, row: Row) -> bool:
        """Whether every run of the row is known to be causal."""
        return all(run["causal"] is True for run in self.runs(row))

    def stale(self, row: Row) -> bool:
        """Whether a run of the row was made by other code."""
        return any(run["stale"] for run in self.runs(row))

    def ranked_means(self, rows: Sequence[Row], metrics: Sequence[str]) -> list[list[float | None]]:
        """By row and metric the mean over the same seeds, by which rows are ranked; None for a row that may not be.

        Ranked are the causal rows of the data, evaluation set and number of steps that more rows have than any other
        (none where two have as many), over the seeds that most of these rows have and where they have them all.
        """
        kinds = [self._kind(row) for row in rows]
        usual = Counter(kind for kind in kinds if kind is not None).most_common(2)
        is_tied = len(usual) == 2 and usual[0][1] == usual[1][1]
        fair = [bool(usual) and not is_tied and kind == usual[0][0] for kind in kinds]
        sets = [frozenset(row.runs) for row, is_fair in zip(rows, fair, strict=True) if is_fair]
        seeds = max(
            sets,
            key=lambda own: (sets.count(own), sum(own <= other for other in sets), sorted(own)),
            default=frozenset[int](),
        )
        may = [is_fair and seeds <= row.runs.keys() for row, is_fair in zip(rows, fair, strict=True)]
        return [
            [self._mean(row, metric, seeds) if ranked else None for metric in metrics]
            for row, ranked in zip(rows, may, strict=True)
        ]

    def front(self, rows: Sequence[Row], metrics: Sequence[str]) -> list[bool]:
        """Whether each row is on the Pareto front of the metrics' means, among those that may be ranked."""
        means = self.ranked_means(rows, metrics)
        return pareto_front(means, [figure(base_name(metric)).direction for metric in metrics])

    def _mean(self, row: Row, metric: str, seeds: Collection[int]) -> float | None:
        interval = mean_interval(value for seed, value in self.values(row, metric).items() if seed in seeds)
        return interval.mean if interval else None

    def _kind(self, row: Row) -> tuple[Any, ...] | None:
        """What rows must share, beside seeds, to be ranked; None for one without runs, or not known to be causal."""
        if not row.runs or not self.causal(row):
            return None
        return tuple(tuple(sorted({str(run[key]) for run in self.runs(row)})) for key in GROUP_KEYS)

    def compare(self, a: Row, b: Row, metric: str) -> Comparison:
        """a − b over seeds; empty, with the reason as its note, for runs that may not be compared."""
        if problem := self.pair_problem(a, b):
            return replace(compare({}, {}), note=problem)
        values = self.values(a, metric), self.values(b, metric)
        designs = a.designs | b.designs
        if not designs:
            return compare(*values)
        if len(designs) > 1:
            return replace(compare({}, {}), note=SEVERAL_DESIGNS)
        (design,) = designs
        if metric == design.metric:
            return design.compare(*values, design.margin)
        found = design.compare(*values, figure(base_name(metric)).margin)
        return replace(found, note=join_notes(found.note, f"seeds were added until {design.metric} was decided"))


def gap_closure(section: Section, row: Row) -> dict[int, float]:
    """(Switch − method)/(Switch − dense) in validation loss by seed; the dense model has the same active size.

    Absent at seeds without all three runs, for runs that may not be compared, for the two ends themselves, and where
    the dense model is no better than Switch: there is no gap then. *Source:* docs/metrics.md.
    """
    ends = [rows[0] for wanted in (SWITCH, DENSE) if (rows := section.find(wanted))]
    if len(ends) < 2 or any(row is end for end in ends) or any(section.pair_problem(row, end) for end in ends):
        return {}
    own, switch, dense = (section.values(r, "val_loss") for r in (row, *ends))
    gaps = {seed: switch[seed] - dense[seed] for seed in own.keys() & switch.keys() & dense.keys()}
    return {seed: (switch[seed] - own[seed]) / gap for seed, gap in sorted(gaps.items()) if gap > LEAST_GAP}


# Figures of a row that need other rows of its section.
DERIVED: dict[str, Callable[[Section, Row], dict[int, float]]] = {"gap_closure": gap_closure}
