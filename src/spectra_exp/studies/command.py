"""`python train.py -m ...` and `python train.py sweeps=NAME ...`: check all, write down what is expected, run it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.resolved import of_the_cell, resolved_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.config.typed import expand_jobs, typed_lists
from spectra_exp.data.sources import check_data
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.provenance import stored_compositions
from spectra_exp.studies.decide import Decisions, Design, design_of
from spectra_exp.studies.definition import Study, load_study
from spectra_exp.studies.expand import file_seeds, study_jobs
from spectra_exp.studies.job import Job, check_twice, planned_jobs
from spectra_exp.studies.launch import run_jobs
from spectra_exp.studies.launchers import Engine, make_engine
from spectra_exp.studies.ledger import read_launches, write_launch
from spectra_exp.studies.view import LiveView
from spectra_exp.studies.work import run_in_worker

# Ends that leave nothing to do.
GOOD_ENDS = ("completed", "not_run")
UNTIL_DECIDED = "launch.until_decided"


def launch_multirun(typed: list[str]) -> int:
    """Every combination of the typed values; returns the exit status. Raises ConfigError before any job starts."""
    lines = expand_jobs(typed, multirun=True)
    check_twice(lines)
    return _launch(lines, typed, None)


def launch_study(choice: str, typed: list[str], elsewhere: Collection[str] = ()) -> int:
    """The study that `choice` (sweeps=NAME) names, sliced and changed by what was typed; returns the exit status.

    `elsewhere`: ids of runs that are finished in another place and are not made here.
    """
    kind, _, name = choice.partition("=")
    study = load_study(name, kind)
    if any(word.startswith(f"{UNTIL_DECIDED}=") and not word.endswith("=null") for word in typed):
        return _until_decided(study, typed)
    return _launch(study_jobs(study, typed), typed, study, elsewhere)


def _launch(lines: list[list[str]], typed: list[str], study: Study | None, elsewhere: Collection[str] = ()) -> int:
    engine = make_engine(typed, run_in_worker)
    jobs = _checked(lines, study)
    if jobs[0].experiment.launch.until_decided is not None:
        raise ConfigError(UNTIL_DECIDED, "has no effect without a study", "name one: sweeps=NAME or ablations=NAME")
    wanted = [job for job in jobs if job.run_id not in elsewhere]
    if study is None:
        return make_missing(wanted, engine, "multirun")
    write_launch(study, typed, jobs)
    status = make_missing(wanted, engine, study.name) if wanted else 0
    # Runs that waited for others have their ids by now.
    write_launch(study, typed, jobs)
    return status


def _until_decided(study: Study, typed: list[str]) -> int:
    """Looks after 3, 5, 7, 10, ... seeds; after each, seeds for the cells of comparisons that are not decided yet.

    What is made follows from the runs alone, so that the same command goes on where it was stopped.
    """
    engine = make_engine(typed, run_in_worker)
    seedless, first = _first_seed(study, typed)
    design = design_of(load_experiment(study_jobs(study, [*seedless, f"seed={first}"])[0]).launch, first)
    decisions, jobs, status = Decisions(study, design), [], 0
    for seeds in design.seeds():
        lines = study_jobs(study, [*seedless, f"seed={','.join(map(str, seeds))}"])
        new = _checked([line for line in lines if decisions.wants(line)], study)
        _one_design(study, design, new)
        jobs += new
        decisions.add(new)
        write_launch(study, typed, jobs, design)
        status = max(status, make_missing(new, engine, f"{study.name} to {seeds[-1] + 1 - first} seeds"))
        write_launch(study, typed, jobs, design)
        decisions.look()
        print(f"look at {seeds[-1] + 1 - first} seeds: {decisions.in_words()}", file=sys.stderr)
        if not decisions.is_open or (status and new[0].experiment.launch.on_failure == "stop"):
            break
    print("\n".join(map(str, decisions.found)), file=sys.stderr)
    return status


def _one_design(study: Study, design: Design, jobs: Sequence[Job]) -> None:
    """Raise ConfigError where seeds were added to one of these cells by another design: the tables test neither."""
    cells = {tuple(of_the_cell(line)) for job in jobs for line in (job.overrides, *job.also)}
    launches, _ = read_launches(Path(jobs[0].experiment.outputs))
    for launch in launches:
        before = launch.design
        if launch.study != study.name or before is None or before == design:
            continue
        if cells & {tuple(of_the_cell(line)) for run in launch.runs for line in (run.overrides, *run.also)}:
            was = f"{before.metric}:{before.margin:g} launch.max_seeds={before.max_seeds} seed={before.first_seed}"
            problem = f"{study.name} was launched with {was} before, and looks of both together were not planned"
            raise ConfigError(UNTIL_DECIDED, problem, "give that again, or other seeds and outputs=FOLDER")


def _first_seed(study: Study, typed: list[str]) -> tuple[list[str], int]:
    """What was typed without its seed, and the first seed: the typed one, else that of the study's file."""
    given = [word for word in typed if word.startswith("seed=")]
    seeds = typed_lists(given).get("seed", [])
    if len(seeds) > 1:
        problem = f"'{given[0]}' was given beside {UNTIL_DECIDED}, which adds seeds itself"
        raise ConfigError("seed", problem, "give the first one, or none; launch.max_seeds is how many at most")
    first = int(seeds[0].partition("=")[2]) if seeds else file_seeds(study)[0]
    return [word for word in typed if word not in given], first


def _checked(lines: list[list[str]], study: Study | None) -> list[Job]:
    """The jobs of a launch, their data and folders there. Raises ConfigError before any of them starts."""
    experiments = [load_experiment(line) for line in lines]
    for experiment in experiments:
        check_data(experiment.data)
    for outputs in {experiment.outputs for experiment in experiments}:
        make_outputs(Path(outputs))
    # Content is hashed and tokenised once, and a bad file is found before the first job.
    jobs = planned_jobs(experiments)
    if study is not None:
        keep_compositions(experiments)
    return jobs


def make_missing(jobs: Sequence[Job], engine: Engine | None, title: str) -> int:
    """Run what is missing of the jobs; the exit status. Raises KeyboardInterrupt where that was stopped."""
    with stopping.launching(), LiveView(jobs, title):
        ends = run_jobs(jobs, engine)
    if not stopping.asked():
        for job in jobs:
            # Why it never became a run.
            if job.waits is not None:
                print(f"error: {job.waits}", file=sys.stderr)
    print(f"{len(jobs)} runs: {_in_words(ends)}", file=sys.stderr)
    if set(ends) <= set(GOOD_ENDS):
        return 0
    if stopping.asked():
        raise KeyboardInterrupt
    return 1


def keep_compositions(experiments: Sequence[Experiment]) -> None:
    """Keep what was composed for the tables, which compose the cells of studies again where they do not find them."""
    compositions = stored_compositions(Path(experiments[0].outputs))
    for experiment in experiments:
        compositions.keep(of_the_cell(experiment.overrides), resolved_experiment(experiment))
    compositions.save()


def _in_words(ends: Counter[str]) -> str:
    return ", ".join(f"{count} {end.replace('_', ' ')}" for end, count in ends.most_common())
