"""Studies survive being killed, and two launches at once: the same tables, and no configuration made twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from test_killed import start

from spectra_exp.reporting.make_tables import main as make_tables
from spectra_exp.runs.summary import read_summary

A = ("sweeps=a_quota", "seed=0", "trainer.max_steps=16", "launch=parallel", "launch.jobs=2")
# Shares the run of osr.repulsion_weight=0.5 with sweep A's quota of 1.25.
C = ("sweeps=c_repulsion", "osr.repulsion_weight=0.3,0.5", "seed=0", "trainer.max_steps=16")
TIMED = ("tokens_per_second", "step_time_ms", "peak_memory_mb", "wall_s", "total_wall_s")


def finish(process: subprocess.Popen) -> str:
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return err


def kill_in_the_middle(outputs: Path, rng: random.Random) -> bool:
    """SIGKILL the launcher and its workers together, a moment after a checkpoint; whether it was still running."""
    process = start(outputs, *A)
    before = len(list(outputs.glob("runs/*/checkpoints/*")))
    while process.poll() is None and len(list(outputs.glob("runs/*/checkpoints/*"))) <= before:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1.5))
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def table(outputs: Path) -> pd.DataFrame:
    assert make_tables([f"outputs={outputs}", "study=a_quota"]) == 0
    found = pd.read_csv(outputs / "tables" / "a_quota" / "routing_metrics.csv")
    return found[[c for c in found if not c.startswith(TIMED)]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of two studies that share a run, launched at once."""
    folder = tmp_path_factory.mktemp("both")
    first, second = start(folder, *A), start(folder, *C)
    finish(first)
    finish(second)
    return folder


@pytest.mark.slow
def test_a_study_killed_with_its_workers_ends_with_the_same_tables(both: Path, tmp_path: Path) -> None:
    assert kill_in_the_middle(tmp_path, random.Random(1))
    assert "5 runs: 5 completed" in finish(start(tmp_path, *A))
    pd.testing.assert_frame_equal(table(both), table(tmp_path))


@pytest.mark.slow
def test_overlapping_studies_launched_at_once_make_each_run_once(both: Path) -> None:
    folders = list(both.glob("runs/*"))
    assert len(folders) == 5 + 1
    for folder in folders:
        assert read_summary(folder / "summary.json")["status"] == "completed"
        assert (folder / "train.log").read_text().count("training begins") == 1
    shared = [s for s in (read_summary(f / "summary.json")["studies"] for f in folders) if len(s) == 2]
    assert [sorted(s) for s in shared] == [["a_quota", "c_repulsion"]]
