"""Seeds added to a study's cells until each comparison with its reference row is decided: `launch.until_decided`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.resolved import of_the_cell, resolved_experiment
from spectra_exp.config.schema import LaunchConfig
from spectra_exp.config.typed import value_text
from spectra_exp.foundations.bounds import MOST_LOOKED_AT
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.measure import METRICS
from spectra_exp.measure.others import OTHER, UNKNOWN, figure
from spectra_exp.runs.pairing import is_prediction, pair_problem, pairing_columns
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.comparison import Comparison, compare
from spectra_exp.statistics.corrections import holm
from spectra_exp.statistics.looks import FIRST_LOOKS, compare_at_looks, schedule
from spectra_exp.statistics.practical import word
from spectra_exp.studies.cells import reference_of, row_label, study_factors
from spectra_exp.studies.definition import Study
from spectra_exp.studies.job import Job

UNDECIDED, NOT_CAUSAL = "undecided", "not causal"

# By seed.
Summaries = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Design:
    """What is decided, and by how many seeds at most: `first_seed`, the next, ... `margin`: in the metric's unit.

    Raises ValueError for a margin or a number of seeds that no launch has.
    """

    metric: str
    margin: float
    max_seeds: int
    first_seed: int

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf or not FIRST_LOOKS[0] <= self.max_seeds <= MOST_LOOKED_AT:
            raise ValueError(f"no design: a margin of {self.margin} and {self.max_seeds} seeds")

    @property
    def first_look(self) -> range:
        """The seeds that are made whatever comes out."""
        return self.seeds()[0]

    def seeds(self) -> tuple[range, ...]:
        """The seeds that each look adds."""
        ends = schedule(self.max_seeds)
        return tuple(
            range(self.first_seed + start, self.first_seed + end) for start, end in zip((0, *ends), ends, strict=False)
        )

    def compare(self, a: Mapping[int, float], b: Mapping[int, float], margin: float | None = None) -> Comparison:
        """a − b (seed → value) of any figure at its last look; seeds of other launches are not used.

        margin: half the figure's region of practical equivalence, None without one.
        """
        own = range(self.first_seed, self.first_seed + self.max_seeds)
        a, b = ({seed: value for seed, value in arm.items() if seed in own} for arm in (a, b))
        return compare_at_looks(a, b, self.max_seeds, margin)


def design_of(launch: LaunchConfig, first_seed: int) -> Design:
    """The design that `launch.until_decided=METRIC:MARGIN` asks for. Raises ConfigError."""
    key, text = "launch.until_decided", str(launch.until_decided)
    metric, colon, given = text.partition(":")
    if figure(metric) is UNKNOWN and metric not in METRICS:
        raise ConfigError.unknown(key, metric, [*METRICS, *OTHER])
    margin = figure(metric).margin
    if colon:
        try:
            margin = float(given)
        except ValueError:
            raise ConfigError(key, f"'{given}' is not a number", "give METRIC:MARGIN, such as val_loss:0.02") from None
        if not 0 < margin < math.inf:
            raise ConfigError(key, f"a margin of {given} was given", "must be finite and greater than 0")
    if margin is None:
        problem = f"{metric} declares no region of practical equivalence"
        raise ConfigError(key, problem, f"give one: {key}={metric}:MARGIN")
    return Design(metric, margin, launch.max_seeds, first_seed)


@dataclass(eq=False)
class Arm:
    """A row of the study as it was launched: `context`, what its runs have beside the study's settings; `key`, its
    values by factor; `jobs`, by seed."""

    context: tuple[str, ...]
    key: dict[str, str]
    jobs: dict[int, Job] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As tables call it."""
        return row_label(self.key)

    def shares_a_run(self, other: Arm) -> bool:
        """Whether a run is both rows'."""
        return any(self.jobs.get(seed) is job for seed, job in other.jobs.items())

    def runs(self) -> Summaries:
        """The summary of each seed that completed and whose figures may be used."""
        planned = {seed: job.planned for seed, job in self.jobs.items() if job.planned is not None}
        stored = {seed: StoredRun(plan.folder.path) for seed, plan in planned.items()}
        return {seed: run.summary for seed, run in stored.items() if run.summary and run.refusal is None}


@dataclass(frozen=True)
class Decided:
    """One comparison: what was found, and `said`: better, equivalent, worse, undecided, or why it is not made.

    `test` is empty where it is not made.
    """

    arm: Arm
    reference: Arm
    test: Comparison
    said: str

    def __str__(self) -> str:
        name, test = f"{self.arm.label} − {self.reference.label}: {self.said}", self.test
        if test.sequential is None:
            return f"{name} ({test.note})" if test.note else name
        numbers = f"{test.difference:+.4g} [{test.ci_low:+.4g}, {test.ci_high:+.4g}]"
        return f"{name} ({numbers}, {test.n} of at most {test.sequential.max_seeds} seeds)"


class Decisions:
    """The arms of a launch, and what may be said of each against the reference after every look."""

    def __init__(self, study: Study, design: Design):
        if not study.reference:
            raise ConfigError("launch.until_decided", f"{study.choice} has no reference row", "give seed=0..4 instead")
        self.study, self.design = study, design
        self._factors = study_factors(study)
        self._arms: dict[Any, Arm] = {}
        self._of_line: dict[tuple[str, ...], Arm] = {}
        self.found: list[Decided] = []

    def add(self, jobs: Iterable[Job]) -> None:
        """Take in the jobs of a look. Rows that are one run share it.

        Raises ConfigError where the reference row, or every other, is not among what was launched.
        """
        for job in jobs:
            for overrides in (job.overrides, *job.also):
                line = without_seed(overrides)
                if line not in self._of_line:
                    self._of_line[line] = self._row(overrides)
                self._of_line[line].jobs[job.experiment.seed] = job
        if not self._pairs():
            words = " ".join(f"{key}={value_text(value)}" for key, value in self.study.reference.items())
            problem = f"nothing was launched to compare with the reference row ({words})"
            raise ConfigError("launch.until_decided", problem, "launch that row and others beside it")

    def _pairs(self) -> list[tuple[Arm, Arm]]:
        """Each row and the one that it is compared with."""
        alike: dict[tuple[str, ...], list[Arm]] = {}
        for arm in self._arms.values():
            alike.setdefault(arm.context, []).append(arm)
        pairs = [(arm, reference_of(arm, rows, self.study.reference)) for rows in alike.values() for arm in rows]
        # Settings that were typed may make one run of two rows.
        return [(arm, other) for arm, other in pairs if other is not None and not arm.shares_a_run(other)]

    def _row(self, overrides: Sequence[str]) -> Arm:
        """The row of a job, by the factors that its overrides name; the rest of them is its context."""
        resolved = resolved_experiment(load_experiment(list(overrides)))
        words = {word.partition("=")[0]: word for word in of_the_cell(overrides)}
        key = {factor: value_text(resolved.at(factor)) for factor in self._factors if factor in words}
        context = tuple(word for name, word in words.items() if name not in key)
        return self._arms.setdefault((context, *key.items()), Arm(context, key))

    def look(self) -> None:
        """Compare every row with its reference, and say what that allows, corrected by Holm over the comparisons."""
        # Every folder is read once, though the reference stands in every comparison.
        runs = {arm: arm.runs() for arm in self._arms.values()}
        compared = [(a, b, *self._compared(runs[a], runs[b])) for a, b in self._pairs()]
        corrected = holm({i: test.p for i, (*_, test, _) in enumerate(compared)})
        self.found = [
            Decided(arm, reference, test, why or self._said(test, corrected[i]))
            for i, (arm, reference, test, why) in enumerate(compared)
        ]

    def wants(self, overrides: Sequence[str]) -> bool:
        """Whether the cell of these overrides needs more seeds: a comparison that it stands in is undecided."""
        own = self._of_line.get(without_seed(overrides))
        undecided = [arm for one in self.found if one.said == UNDECIDED for arm in (one.arm, one.reference)]
        return own is None or any(own is other for other in undecided)

    @property
    def is_open(self) -> bool:
        """Whether a comparison is undecided."""
        return any(one.said == UNDECIDED for one in self.found)

    def in_words(self) -> str:
        """How many comparisons have come to what."""
        counts = Counter(one.said for one in self.found)
        return ", ".join(f"{count} {said}" for said, count in counts.most_common())

    def _compared(self, runs_a: Summaries, runs_b: Summaries) -> tuple[Comparison, str]:
        """The comparison, and why it says nothing; empty where it does."""
        why = ""
        for seed in sorted(runs_a.keys() & runs_b.keys()):
            pair = runs_a[seed], runs_b[seed]
            if problem := pair_problem(*map(pairing_columns, pair)):
                why = f"not compared: {problem} at seed {seed}"
            elif is_prediction(self.design.metric) and not all(run.get("causal") is True for run in pair):
                why = NOT_CAUSAL
        a, b = (
            {seed: run["metrics"].get(self.design.metric) for seed, run in runs.items()} for runs in (runs_a, runs_b)
        )
        # No figures of what is no evidence.
        return replace(compare({}, {}), note="") if why else self.design.compare(a, b, self.design.margin), why

    def _said(self, test: Comparison, corrected: float | None) -> str:
        if test.sequential is None or test.difference is None:
            return UNDECIDED
        return word(test.difference, corrected, test.sequential.equivalent_p, figure(self.design.metric).direction)


def without_seed(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides of a job's cell."""
    return tuple(part for part in overrides if not part.startswith("seed="))
