"""One run of a launch: what was asked for, which run that is, and how it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError, NotYet
from spectra_exp.runs.lock import holder_alive
from spectra_exp.runs.plan import Plan, plan


@dataclass
class Job:
    """`planned` is None while the job waits for other runs (`waits`: why). `ended`: how it came out, once known.

    `also`: other lines of the launch that are the same run.
    """

    overrides: list[str]
    experiment: Experiment
    also: list[list[str]] = field(default_factory=list)
    planned: Plan | None = None
    waits: NotYet | None = None
    ended: str | None = None
    attempts: int = 0
    crashes: int = 0

    def make_plan(self) -> None:
        """Find out which run it is. Raises ConfigError."""
        try:
            self.planned, self.waits = plan(self.experiment), None
        except NotYet as error:
            self.waits = error

    @property
    def known(self) -> Plan:
        """`planned`, of a job that waits no more."""
        assert self.planned is not None
        return self.planned

    @property
    def run_id(self) -> str | None:
        """None while that depends on runs that have not finished."""
        return self.planned.folder.run_id if self.planned else None

    @property
    def cell_id(self) -> str | None:
        """As `run_id`, of the run's cell."""
        return self.planned.identity.cell_id if self.planned else None

    def finished(self) -> bool:
        """Whether the run has an end that stands and nobody asked for another."""
        if self.planned is None or not self.planned.stands():
            return False
        return self.attempts > 0 or not (self.experiment.force or self.experiment.refresh == "stale")

    def held(self) -> bool:
        """Whether a living process works on it."""
        return self.planned is not None and holder_alive(self.planned.folder.path)


def make_jobs(lines: Iterable[list[str]]) -> list[Job]:
    """The jobs of a launch, one a run, each checked. Raises ConfigError for any that cannot run, before any has."""
    return planned_jobs([load_experiment(line) for line in lines])


def planned_jobs(experiments: Iterable[Experiment]) -> list[Job]:
    """As make_jobs, of what was composed already."""
    jobs = [Job(experiment.overrides, experiment) for experiment in experiments]
    for job in jobs:
        job.make_plan()
    distinct: dict[str, Job] = {}
    for job in jobs:
        first = distinct.setdefault(job.run_id or " ".join(job.overrides), job)
        if first is not job:
            first.also.append(job.overrides)
    for job in distinct.values():
        if job.waits is not None and not job.waits.run_ids <= distinct.keys():
            # Nothing in this launch would make what it waits for.
            raise job.waits
    return list(distinct.values())


def check_twice(lines: list[list[str]]) -> None:
    """Raise ConfigError for a launch without a job, or with one twice."""
    if not lines:
        raise ConfigError("command line", "the sweep has no job", "give at least one value")
    seen: set[tuple[str, ...]] = set()
    for line in lines:
        if tuple(line) in seen:
            raise ConfigError("command line", f"the sweep has the job '{' '.join(line)}' twice", "give each value once")
        seen.add(tuple(line))
