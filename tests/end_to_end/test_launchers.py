"""The same jobs under every launcher: the same numbers, also when a worker is killed; and stopping them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import psutil
import pytest
from test_killed import ROOT, outcome

SWEEP = (
    "-m",
    "seed=0,1",
    "baseline=switch_top2",
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.expert_size=16",
    "model.num_experts=4",
    "data.sequence_length=32",
    "data.train_words=5000",
    "data.validation_words=2000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=512",
    "data.probe_tokens=256",
    "trainer.batch_size=4",
    "trainer.checkpoint_every=3",
)
SHORT, LONG = "trainer.max_steps=18", "trainer.max_steps=4000"
NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
Outcomes = dict[str, tuple[dict, pd.DataFrame, str]]


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcomes]:
    """The folder and the outcomes of the jobs run one after another in one process."""
    folder = tmp_path_factory.mktemp("local")
    finish(start(folder, SHORT))
    return folder, outcomes(folder)


@pytest.fixture
def outputs(tmp_path: Path, in_process: tuple[Path, Outcomes]) -> Path:
    """A folder without runs that shares the tokenised data."""
    (tmp_path / "cache").symlink_to(in_process[0] / "cache")
    return tmp_path


def start(outputs: Path, *overrides: str) -> subprocess.Popen:
    """The jobs, launched in a process group of their own, where launchers and libraries choose the threads."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *SWEEP, *overrides],
        env=environment | {"SPECTRA_OUTPUTS": str(outputs)},
        cwd=outputs,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[list[str], str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip().splitlines(), err


def outcomes(folder: Path) -> Outcomes:
    """Of each run below `folder`: its summary, its history, and a digest of the weights it ended with."""
    found = {}
    for path in folder.glob("runs/*"):
        summary, history, _ = outcome(path)
        # Says which code, not what came out of it.
        summary["fingerprints"].pop("code")
        weights = max(path.glob("checkpoints/step-*")) / "model.safetensors"
        found[path.name] = summary, history, hashlib.sha256(weights.read_bytes()).hexdigest()
        assert json.loads((path / "environment.json").read_text())["threads"]["torch"] == 1
    return found


def assert_same(found: Outcomes, expected: Outcomes) -> None:
    assert found.keys() == expected.keys() and len(found) == 2
    for run_id, (summary, history, weights) in found.items():
        assert summary == expected[run_id][0] and weights == expected[run_id][2]
        assert history.equals(expected[run_id][1])


def trained_pids(outputs: Path, process: subprocess.Popen) -> list[int]:
    """The processes that hold the runs which wrote a checkpoint, once there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        holders = [p.parent / ".lock-holder.json" for p in outputs.glob("runs/*/checkpoints") if any(p.glob("step-*"))]
        holders = [path for path in holders if path.exists()]
        if holders:
            return [json.loads(path.read_text())["pid"] for path in holders]
        time.sleep(0.01)
    raise AssertionError("no run got so far")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", ["parallel", pytest.param("submitit", marks=pytest.mark.full), pytest.param("ray", marks=NEEDS_RAY)]
)
def test_every_launcher_gives_the_numbers_of_one_process(
    outputs: Path, in_process: tuple[Path, Outcomes], launch: str
) -> None:
    lines, err = finish(start(outputs, SHORT, f"launch={launch}"))
    assert sorted(lines) == sorted(str(path) for path in outputs.glob("runs/*"))
    assert "2 runs: 2 completed" in err
    assert_same(outcomes(outputs), in_process[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", ["parallel", pytest.param("submitit", marks=pytest.mark.full), pytest.param("ray", marks=NEEDS_RAY)]
)
def test_a_killed_worker_changes_no_number(outputs: Path, in_process: tuple[Path, Outcomes], launch: str) -> None:
    process = start(outputs, SHORT, f"launch={launch}")
    os.kill(trained_pids(outputs, process)[0], signal.SIGKILL)
    _, err = finish(process)
    assert "error: " in err and "Traceback" not in err
    assert_same(outcomes(outputs), in_process[1])


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["submitit", pytest.param("ray", marks=NEEDS_RAY)])
def test_ctrl_c_stops_the_workers_after_their_step(outputs: Path, launch: str) -> None:
    process = start(outputs, LONG, f"launch={launch}", "launch.jobs=1")
    workers = [psutil.Process(pid) for pid in trained_pids(outputs, process)]
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "goes on from the last checkpoint" in err and "Traceback" not in err
    assert not psutil.wait_procs(workers, timeout=30)[1]
    # The second job did not begin.
    (path,) = outputs.glob("runs/*")
    summary = json.loads((path / "summary.json").read_text())
    assert summary["status"] == "stopped" and "1 stopped, 1 not started" in err
    assert (path / "checkpoints" / f"step-{summary['steps']:08d}").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["submitit", pytest.param("ray", marks=NEEDS_RAY)])
def test_workers_end_with_a_killed_launcher(outputs: Path, launch: str) -> None:
    process = start(outputs, LONG, f"launch={launch}", "launch.jobs=1")
    workers = [psutil.Process(pid) for pid in trained_pids(outputs, process)]
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    if launch == "submitit":
        # Ray kills its workers; they go on from their last checkpoint all the same.
        statuses = [json.loads(path.read_text())["status"] for path in outputs.glob("runs/*/summary.json")]
        assert statuses == ["stopped"]
