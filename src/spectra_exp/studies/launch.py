"""Runs the jobs of a launch until each has an end: what waits, what crashes and what others hold included."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import RunInUse, SpectraError
from spectra_exp.studies.job import Job
from spectra_exp.studies.launchers import Broken
from spectra_exp.studies.room import make_room
from spectra_exp.studies.work import run_here
from spectra_exp.training.execute import in_study, join_study, mark_failed

# How often a run that another process holds is looked at.
POLL_S = 1.0
CRASHED = "the worker process died (killed by the system, perhaps for want of memory)"


class Launches(Protocol):
    """What runs a batch of jobs."""

    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """The status that each job's task returned. Raises Broken when a worker process died."""


def run_jobs(jobs: Sequence[Job], engine: Launches | None) -> Counter[str]:
    """Run what is missing, in this process where there is no `engine`; returns how many jobs came to each end.

    Ends: completed, diverged, not_run, failed, stopped, waiting (for runs that never finished), not started.
    """
    make_room(jobs)
    options = jobs[0].experiment.launch
    stop_file = Path(jobs[0].experiment.outputs) / "launch" / f"{os.getpid()}-{time.time_ns()}.stop"
    os.environ[stopping.STOP_FILE] = str(stop_file)
    told = False
    try:
        while not stopping.asked() and not stop_file.exists():
            open_jobs = [job for job in jobs if job.ended is None]
            _settle(open_jobs)
            open_jobs = [job for job in open_jobs if job.ended is None and job.planned is not None]
            ready = [job for job in open_jobs if not job.held()]
            if ready:
                # All that did not crash; then those that did, each alone, so that it takes no other down.
                calm = [job for job in ready if not job.crashes]
                _run_batch(calm or ready[:1], engine, options.retries)
            elif open_jobs:
                if not told:
                    print(f"waiting for {len(open_jobs)} runs that another process makes", file=sys.stderr)
                    told = True
                time.sleep(POLL_S)
            else:
                break
    finally:
        os.environ.pop(stopping.STOP_FILE, None)
        stop_file.unlink(missing_ok=True)
    return Counter(job.ended or ("waiting" if job.planned is None else "not started") for job in jobs)


def _settle(jobs: Sequence[Job]) -> None:
    """Note the ends of runs that finished, and find out what waiting jobs have become."""
    for job in jobs:
        if job.planned is None:
            job.make_plan()
        if job.finished() and _joined(job):
            job.ended = job.known.folder.status()


def _joined(job: Job) -> bool:
    """Note in the finished run that this study asked for it; False while another process writes there.

    Where nothing can be written, such as in another user's folder, that is said: the run is there all the same.
    """
    if in_study(job.known):
        return True
    try:
        with job.known.folder.hold():
            # Read again: another launch may have written since.
            join_study(job.known)
        return True
    except RunInUse:
        return False
    except SpectraError as error:
        print(f"error: {error}; the tables of this study alone leave the run out", file=sys.stderr)
        return True


def _run_batch(batch: list[Job], engine: Launches | None, retries: int) -> None:
    started = time.time()
    try:
        statuses = [run_here(job.known) for job in batch] if engine is None else engine.launch(batch)
    except Broken as error:
        print(f"error: {error}", file=sys.stderr)
        _after_crash(batch, started, retries)
        return
    for job, status in zip(batch, statuses, strict=True):
        # Held elsewhere: it is looked at again. Not started: the loop ends.
        if status not in ("in use", "not started"):
            job.attempts += 1
            job.ended = status


def _after_crash(batch: list[Job], started: float, retries: int) -> None:
    """Tell the jobs that ended from those in progress when a worker died; one that crashes alone has failed."""
    alone = len(batch) == 1
    for job in batch:
        folder = job.known.folder
        if folder.summary.exists() and folder.summary.stat().st_mtime >= started:
            job.attempts, job.ended = job.attempts + 1, folder.status()
    left = [job for job in batch if job.ended is None]
    # A worker that died before it held a run leaves no trace: then any of them may have been its.
    for job in [job for job in left if job.known.folder.left_held()] or [job for job in left if not job.held()]:
        job.crashes += 1
        if alone and job.crashes > 1 + retries:
            mark_failed(job.known, CRASHED)
            print(f"error: {job.run_id}: failed: {CRASHED}", file=sys.stderr)
            job.ended = "failed"
