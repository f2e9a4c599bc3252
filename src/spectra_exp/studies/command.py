"""`python train.py -m ...` and `python train.py sweeps=NAME ...`: check all, write down what is expected, run it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.resolved import of_the_cell, resolved_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.config.typed import expand_jobs
from spectra_exp.data.sources import check_data
from spectra_exp.foundations import stopping
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.provenance import stored_compositions
from spectra_exp.studies.definition import Study, load_study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import check_twice, planned_jobs
from spectra_exp.studies.launch import explain_waiting, run_jobs
from spectra_exp.studies.launchers import make_engine
from spectra_exp.studies.ledger import write_launch
from spectra_exp.studies.view import LiveView
from spectra_exp.studies.work import run_in_worker

# Ends that leave nothing to do.
GOOD_ENDS = ("completed", "not_run")


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
    return _launch(study_jobs(study, typed), typed, study, elsewhere)


def _launch(lines: list[list[str]], typed: list[str], study: Study | None, elsewhere: Collection[str] = ()) -> int:
    engine = make_engine(typed, run_in_worker)
    experiments = [load_experiment(line) for line in lines]
    for experiment in experiments:
        check_data(experiment.data)
    for outputs in {experiment.outputs for experiment in experiments}:
        make_outputs(Path(outputs))
    # Content is hashed and tokenised once, and a bad file is found before the first job.
    jobs = planned_jobs(experiments)
    if study is not None:
        write_launch(study, typed, jobs)
        keep_compositions(experiments)
    wanted = [job for job in jobs if job.run_id not in elsewhere]
    if not wanted:
        return 0
    with stopping.launching(), LiveView(wanted, study.name if study else "multirun"):
        ends = run_jobs(wanted, engine)
    if study is not None:
        # Runs that waited for others have their ids by now.
        write_launch(study, typed, jobs)
    for reason in explain_waiting(wanted):
        print(f"error: {reason}", file=sys.stderr)
    print(f"{len(wanted)} runs: {_in_words(ends)}", file=sys.stderr)
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
