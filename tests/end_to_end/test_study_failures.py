"""What goes wrong in one job stays there: it raises, the system kills it, the disk is full; retries and stopping."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest
from test_launchers import SHORT, SWEEP
from test_launchers import start as start_sweep

from spectra_exp import cli
from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.files import one_line_errors
from spectra_exp.runs.summary import read_summary
from spectra_exp.studies.launch import CRASHED
from spectra_exp.training import execute

SEEDS = ("seed=0,1,2", "trainer.max_steps=2", *(o for o in SWEEP if not o.startswith("seed=")))
plain_train, plain_write = execute._train, execute.write_json


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Launches three seeds in this process; returns the exit status."""
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    prepare_environment()
    return lambda *typed: cli.main([*SEEDS, *typed])


def statuses(outputs: Path) -> dict[int, str]:
    """The status of each seed's run that left one."""
    return {s["seed"]: s["status"] for s in map(read_summary, outputs.glob("runs/*/summary.json"))}


def failing(times: int, attempts: list[int]):
    """Training that raises for seed 1, so many times; notes the seed of each attempt."""

    def train(planned, *args):
        attempts.append(planned.experiment.seed)
        if planned.experiment.seed == 1 and attempts.count(1) <= times:
            raise ValueError("made to\nfail")
        return plain_train(planned, *args)

    return train


@pytest.mark.slow
def test_a_job_that_raises_is_shown_kept_and_made_again(launch, tmp_path, monkeypatch, capsys) -> None:
    attempts: list[int] = []
    monkeypatch.setattr(execute, "_train", failing(1, attempts))
    assert launch() == 1
    err = capsys.readouterr().err
    assert statuses(tmp_path) == {0: "completed", 1: "failed", 2: "completed"} and attempts == [0, 1, 2]
    assert err.count("failed: ValueError: made to fail\n") == 1 and "3 runs: 2 completed, 1 failed" in err
    assert "Traceback" not in err
    (log,) = (p.with_name("train.log") for p in tmp_path.glob("runs/*/summary.json") if read_summary(p)["seed"] == 1)
    assert "Traceback" in log.read_text()
    assert launch() == 0
    assert statuses(tmp_path)[1] == "completed" and attempts == [0, 1, 2, 1]


@pytest.mark.slow
def test_retries_and_stopping_at_the_first_failure(launch, tmp_path, monkeypatch, capsys) -> None:
    attempts: list[int] = []
    monkeypatch.setattr(execute, "_train", failing(99, attempts))
    assert launch("launch.on_failure=stop", "launch.retries=1") == 1
    assert statuses(tmp_path) == {0: "completed", 1: "failed"} and attempts == [0, 1, 1]
    assert "1 completed, 1 failed, 1 not started" in capsys.readouterr().err
    monkeypatch.setattr(execute, "_train", failing(4, attempts))
    assert launch("launch.retries=2") == 0
    assert statuses(tmp_path) == dict.fromkeys(range(3), "completed") and attempts == [0, 1, 1, 1, 1, 1, 2]


@pytest.mark.slow
def test_a_disk_too_full_for_one_summary_costs_that_run_alone(launch, tmp_path, monkeypatch, capsys) -> None:
    def full(path, value, **kwargs):
        if Path(path).name == "summary.json" and value["seed"] == 1:
            with one_line_errors(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        plain_write(path, value, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "write_json", full)
        assert launch() == 1
    err = capsys.readouterr().err
    assert statuses(tmp_path) == {0: "completed", 2: "completed"}
    assert err.count("the disk is full") == 1 and "Traceback" not in err and "2 completed, 1 failed" in err
    assert launch() == 0
    assert statuses(tmp_path) == dict.fromkeys(range(3), "completed")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["parallel", pytest.param("submitit", marks=pytest.mark.full)])
def test_a_job_that_the_system_kills_whenever_it_runs_fails_alone(tmp_path: Path, launcher: str) -> None:
    process = start_sweep(tmp_path, SHORT, f"launch={launcher}")
    killed: set[int] = set()
    while process.poll() is None:
        for path in tmp_path.glob("runs/*-s1-*/.lock-holder.json"):
            holder = holder_of(path)
            # The launcher itself holds the folder to note the end of a run that could not.
            if holder not in (None, process.pid) and holder not in killed:
                os.kill(holder, signal.SIGKILL)
                killed.add(holder)
        time.sleep(0.005)
    out, err = process.communicate()
    assert process.returncode == 1 and "2 runs: 1 completed, 1 failed" in err and "Traceback" not in err, err
    assert statuses(tmp_path) == {0: "completed", 1: "failed"} and len(killed) == 2
    (error,) = {s["error"] for s in map(read_summary, tmp_path.glob("runs/*-s1-*/summary.json"))}
    assert error == CRASHED and error in err


def holder_of(path: Path) -> int | None:
    """The process that a lock's note names, None when it is gone."""
    try:
        return json.loads(path.read_text())["pid"]
    except (OSError, ValueError):
        return None
