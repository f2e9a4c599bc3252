"""The optimiser's side of a search: the stored study, the sampler, and the batches of trials that are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.presentation.text import number_text
from spectra_exp.studies.job import Job, make_jobs
from spectra_exp.studies.launch import Launches, run_jobs
from spectra_exp.studies.view import LiveView

SETTINGS = "settings"
FINISHED = (TrialState.COMPLETE, TrialState.FAIL)


class TrialFailed(SpectraError):
    """A trial without a value."""


def open_study(storage: BaseStorage, name: str, directions: Sequence[str], settings: dict[str, Any]) -> optuna.Study:
    """The stored study, made if missing. Raises ConfigError for one that searched something else.

    Trials that a killed search left running wait for their turn again, with the values that they had.
    """
    if name not in [stored.study_name for stored in optuna.get_all_study_summaries(storage)]:
        study = optuna.create_study(study_name=name, storage=storage, directions=list(directions))
        study.set_user_attr(SETTINGS, settings)
        return study
    study = optuna.load_study(name, storage)
    stored = study.user_attrs.get(SETTINGS, {})
    if stored != settings:
        differ = [key for key in settings if settings[key] != stored.get(key)]
        shown = "; ".join(f"{key}: {stored.get(key, 'unknown')}" for key in differ if key != "point")
        problem = f"the stored study '{name}' is another search ({shown or 'its fixed values or the data differ'})"
        raise ConfigError("search.name", problem, "give another search.name")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        storage.set_trial_state(trial._trial_id, TrialState.WAITING)
    return study


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have an end, in their order."""
    return study.get_trials(deepcopy=False, states=FINISHED)


class ByTrial(BaseSampler):
    """A sampler made anew for each trial, seeded by the trial's number.

    What a trial tries then depends on the stored trials alone: a resumed search goes on as one that never stopped,
    where a sampler seeded once would repeat its first draws.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        """`make`: the sampler of a seed."""
        self._make, self._seed = make, seed
        self._made: dict[int, BaseSampler] = {}

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._made:
            words = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)
            self._made[trial.number] = self._make(int(words[0]))
        return self._made[trial.number]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        return self._of(trial).sample_independent(study, trial, name, distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)
        self._made.pop(trial.number)


@dataclass(frozen=True)
class TrialEnd:
    """What the plugin reads of a job: its value or values, or the exception that makes it a failed trial."""

    values: list[float]
    reason: str = ""

    @property
    def return_value(self) -> float | list[float]:
        if self.reason:
            raise TrialFailed(self.reason)
        return self.values[0] if len(self.values) == 1 else self.values


@dataclass
class TrialLauncher:
    """Stands where the plugin expects Hydra's launcher: runs a batch of trials and reads their values."""

    study: optuna.Study
    storage: BaseStorage
    objectives: Sequence[str]
    fixed: Sequence[str]
    n_trials: int
    engine: Launches | None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[TrialEnd]:
        """The ends of the trials that are running. Raises KeyboardInterrupt when asked to stop."""
        # The plugin hands over no trial, but it asked for these and no others, in this order.
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # Handed to the plugin, what all trials share would be stored anew with every trial.
        made = [_make_job([*line, *self.fixed]) for line in job_overrides]
        jobs = [job for job in made if isinstance(job, Job)]
        if jobs:
            last = trials[-1].number + 1
            with LiveView(jobs, f"{self.study.study_name}: trial {last} of {self.n_trials}"):
                run_jobs(jobs, self.engine)
            if stopping.asked() or any(job.ended == "stopped" for job in jobs):
                raise KeyboardInterrupt
            if jobs[0].experiment.launch.on_failure == "stop" and any(job.ended in ("failed", None) for job in jobs):
                raise SpectraError("a trial failed, and launch.on_failure=stop ends the search")
        return [self._end(trial, job) for trial, job in zip(trials, made, strict=True)]

    def _end(self, trial: FrozenTrial, job: Job | ConfigError) -> TrialEnd:
        """The trial's end, noted beside the trial and printed."""
        end = TrialEnd([], str(job)) if isinstance(job, ConfigError) else self._end_of_run(job)
        notes = {"reason": end.reason, "run_id": job.run_id if isinstance(job, Job) else ""}
        for key, note in notes.items():
            self.storage.set_trial_user_attr(trial._trial_id, key, note)
        shown = ", ".join(
            f"{name} {number_text(value)}" for name, value in zip(self.objectives, end.values, strict=False)
        )
        prefix = f"trial {trial.number + 1} of {self.n_trials}"
        print(f"error: {prefix}: {end.reason}" if end.reason else f"{prefix}: {shown}", file=sys.stderr)
        return end

    def _end_of_run(self, job: Job) -> TrialEnd:
        if job.ended is None:
            return TrialEnd([], f"{job.run_id}: was not run")
        try:
            summary = job.known.folder.read_summary()
        except SpectraError as error:
            # Such as a disk too full for it.
            return TrialEnd([], f"{job.run_id}: {error}")
        if job.ended != "completed":
            return TrialEnd([], f"{job.run_id}: {job.ended.replace('_', ' ')}: {summary.get('error')}")
        values = [summary["metrics"].get(name) for name in self.objectives]
        missing = [name for name, value in zip(self.objectives, values, strict=True) if value is None]
        if missing:
            return TrialEnd([], f"{job.run_id}: {', '.join(missing)} is not defined for this run")
        return TrialEnd([float(value) for value in values])


def _make_job(line: list[str]) -> Job | ConfigError:
    try:
        return make_jobs([line])[0]
    except ConfigError as error:
        return error
