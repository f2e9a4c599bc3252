"""Jobs side by side: one GPU each, the threads they asked for, a warning where cores are short."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from study_cases import jobs_of

from spectra_exp.foundations.devices import GPUS, Gpu
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies import room
from spectra_exp.studies.room import THREAD_VARIABLES, make_room

TWO = [Gpu("3", "GPU-a"), Gpu("5", "GPU-b")]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (*THREAD_VARIABLES, GPUS):
        monkeypatch.setenv(name, "kept for the end of the test")
    room.warn.cache_clear()
    monkeypatch.setattr(room, "visible_gpus", lambda: TWO)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})


def on_gpu(*lines: str):
    jobs = jobs_of(*lines)
    for job in jobs:
        job.planned = replace(job.planned, device="cuda")
    return jobs


def test_more_jobs_at_once_than_gpus_are_refused_before_any_starts(outputs):
    with pytest.raises(ConfigError, match=r"launch.jobs: 3 jobs at once.* of 2; give launch.jobs=2"):
        make_room(on_gpu("launch=parallel launch.jobs=3"))
    make_room(on_gpu("launch=parallel launch.jobs=2"))
    assert os.environ[GPUS] == "3,5"


def test_gpus_that_are_shared_have_more_places(outputs):
    make_room(on_gpu("launch=parallel launch.jobs=8 launch.per_gpu=4"))
    with pytest.raises(
        ConfigError, match=r"9 jobs at once, each with one of 4 places on a GPU, of 2; give launch.jobs=8"
    ):
        make_room(on_gpu("launch=parallel launch.jobs=9 launch.per_gpu=4"))


def test_the_cpu_and_a_cluster_know_no_such_limit(outputs):
    make_room(jobs_of("launch=parallel launch.jobs=3"))
    make_room(on_gpu("launch=slurm launch.jobs=3"))
    assert GPUS not in os.environ


def test_more_threads_than_cores_are_said_once(outputs, capsys):
    jobs = jobs_of("launch=parallel launch.jobs=3 trainer.cpu_threads=2")
    make_room(jobs)
    make_room(jobs)
    assert capsys.readouterr().err.count("= 6 threads on 4 cores") == 1
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"2"}


def test_sharing_a_gpu_that_no_run_uses_is_said(outputs, capsys):
    make_room(jobs_of("launch=parallel launch.jobs=2 launch.per_gpu=2"))
    assert capsys.readouterr().err == "warning: launch.per_gpu=2 has no effect, since these runs use no GPU\n"


def test_as_many_threads_as_cores_are_no_matter(outputs, capsys):
    make_room(jobs_of("launch=parallel launch.jobs=4", "launch=parallel launch.jobs=4 trainer.cpu_threads=1 seed=1"))
    assert capsys.readouterr().err == ""
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"1"}
