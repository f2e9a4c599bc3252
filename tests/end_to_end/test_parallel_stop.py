from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from test_killed import start

from spectra_exp.runs.summary import read_summary

SWEEP = ("-m", "seed=0,1,2", "baseline=switch_top2", "launch=parallel", "launch.jobs=2", "trainer.max_steps=400")


def started(outputs: Path) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A parallel multirun whose two workers train, and the workers."""
    process = start(outputs, *SWEEP)
    deadline = time.monotonic() + 120
    while len(list(outputs.glob("runs/*/checkpoints/step-*"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    workers = [c for c in psutil.Process(process.pid).children(recursive=True) if c.cpu_percent(0.2) > 0]
    assert len(workers) == 2
    return process, workers


def gone(workers: list[psutil.Process]) -> bool:
    """Whether all workers end within a while."""
    return not psutil.wait_procs(workers, timeout=30)[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_workers_after_their_step_and_starts_no_more(tmp_path: Path, number: signal.Signals) -> None:
    process, workers = started(tmp_path)
    os.kill(process.pid, number) if number == signal.SIGTERM else os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from the last checkpoint" in err and "Traceback" not in err
    summaries = [read_summary(path) for path in tmp_path.glob("runs/*/summary.json")]
    assert [s["status"] for s in summaries] == ["stopped", "stopped"] and gone(workers)
    assert all((tmp_path / "runs" / s["run_id"] / "checkpoints" / f"step-{s['steps']:08d}").is_dir() for s in summaries)


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    process, workers = started(tmp_path)
    process.kill()
    process.communicate()
    assert gone(workers)
    stopped = [read_summary(path)["status"] for path in tmp_path.glob("runs/*/summary.json")]
    assert stopped == ["stopped", "stopped"]
