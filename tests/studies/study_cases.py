"""What the tests of this folder share: the smallest data, and an engine that finishes runs without training."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from spectra_exp.foundations.errors import RunInUse
from spectra_exp.foundations.files import write_json, write_text
from spectra_exp.runs.summary_head import summary_head
from spectra_exp.studies.job import Job, make_jobs
from spectra_exp.training.execute import _plain

# Data of which the tokeniser is trained in a moment.
TINY = [
    "data.train_words=4000",
    "data.validation_words=2000",
    "data.vocabulary_size=300",
    "data.sequence_length=16",
    "data.evaluation_tokens=256",
    "data.probe_tokens=64",
]


def jobs_of(*lines: str) -> list[Job]:
    """Jobs on the tiny data, one a line of overrides."""
    return make_jobs([[*TINY, *line.split()] for line in lines])


def finish(job: Job, status: str = "completed", **metrics: float) -> str:
    """Leave the summary of a run that ended so."""
    job.make_plan()
    head = summary_head(job.planned, {"code_version": "x"}, "now")
    head |= {"status": status, "metrics": metrics, "error": None if status == "completed" else f"made to be {status}"}
    if status == "completed":
        head["steps"] = head["max_steps"]
    write_json(job.planned.folder.summary, head)
    write_text(job.planned.folder.config, yaml.safe_dump(_plain(job.planned.experiment), sort_keys=False))
    return status


class StandIn:
    """An engine: `behaviour` is called with each job, holds its folder meanwhile, and returns the status."""

    def __init__(self, jobs: list[Job], behaviour: Callable[[Job], str] = finish):
        self.jobs, self.behaviour = jobs, behaviour
        self.batches: list[list[str]] = []

    def launch(self, batch: list[Job]) -> list[Any]:
        self.batches.append([name(job) for job in batch])
        return [self._run(job) for job in batch]

    def _run(self, job: Job) -> str:
        try:
            with job.planned.folder.hold():
                return self.behaviour(job)
        except RunInUse:
            return "in use"


def name(job: Job) -> str:
    """The last override: what tells the jobs of a test apart."""
    return job.overrides[-1]


HOLDER = """
import sys, time
from spectra_exp.runs.folder import RunFolder
with RunFolder(sys.argv[1], sys.argv[2]).hold():
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def hold_elsewhere(job: Job, seconds: float) -> subprocess.Popen[str]:
    """A process that holds the job's folder for so long."""
    folder = job.planned.folder
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path.parent), folder.run_id, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout.readline() == "held\n"
    return process


def leave_held(job: Job) -> None:
    """The folder as a process leaves it that was killed while it held it."""
    process = hold_elsewhere(job, 600)
    process.kill()
    process.wait()
    assert job.planned.folder.left_held()


def age(path: Path, seconds: float) -> None:
    """Make a file look older."""
    past = time.time() - seconds
    os.utime(path, (past, past))
