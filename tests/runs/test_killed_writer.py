"""A writer killed at any instant leaves nothing half-written that a reader would take for whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spectra_exp.runs.checkpoints import verify_checkpoint
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import History
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths

_WRITER = """
import sys
import numpy as np
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.foundations.files import write_json
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import History
from spectra_exp.runs.routing_files import save_snapshot

run = RunFolder(sys.argv[1], "r-00000000")
with run.hold():
    latest = run.latest_checkpoint()
    step = int(latest.name[5:]) if latest else 0
    history = History.load(run.history) if run.history.exists() else History()
    history.truncate_after(step)
    while True:
        step += 1
        history.add(step, 0.5, "train", {f"metric_{i}": step + i for i in range(50)})
        history.save(run.history)
        save_snapshot(run.routing, RoutingSnapshot(
            step % 5, 0.5, 2, 1000, np.full((4, 3, 64), step), np.full((4, 9, 64), step),
            np.zeros((4, 500, 2)), np.ones((4, 500, 2))))
        write_json(run.summary, {"schema": 1, "status": "stopped", "steps": step, "filler": ["x" * 1000] * 50})
        staging = run.stage_checkpoint(step)
        for name in ("model", "optimizer"):
            (staging / name).write_bytes(bytes([step % 256]) * 200_000)
        run.commit_checkpoint(staging, step)
        print("committed", flush=True)
"""


# Planted fault: the summary written in place, a piece at a time.
_IN_PLACE = _WRITER.replace(
    "        write_json(run.summary, ",
    """
        def in_place(path, value):
            import json, time
            with open(path, "w") as file:
                for piece in json.dumps(value).partition('"steps"'):
                    file.write(piece)
                    file.flush()
                    time.sleep(0.05)
        in_place(run.summary, """,
)


def _kill_after(root: Path, seconds: float, writer: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", writer, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "committed\n"
    time.sleep(seconds)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _check_whole(run: RunFolder) -> int:
    """The newest checkpoint's step, after all that can be read has been found whole."""
    if run.summary.exists():
        assert run.status() == "stopped"
    if run.history.exists():
        frame = History.load(run.history).frame()
        assert (frame.groupby("step").size() == 50).all()
    for path in snapshot_paths(run.routing).values():
        counts_LE = load_snapshot(path).counts_LE
        assert (counts_LE == counts_LE[0, 0]).all()
    assert all(verify_checkpoint(path) for path in run.checkpoints())
    with run.hold():
        newest = run.latest_checkpoint()
        hidden = [p for p in run.path.rglob(".*") if not p.name.startswith(".lock")]
        assert hidden == []
    return _step(newest) if newest else 0


def _kill_and_check(root: Path, kills: int, seed: int, writer: str = _WRITER) -> None:
    generator, run, reached = random.Random(seed), RunFolder(root, "r-00000000"), 0
    for _ in range(kills):
        _kill_after(root, generator.uniform(0.0, 0.2), writer)
        now = _check_whole(run)
        assert now > reached  # a kill never takes back a committed checkpoint
        reached = now


def test_killed_writer(tmp_path: Path) -> None:
    _kill_and_check(tmp_path, kills=5, seed=int(time.time()))


def test_planted_fault_a_summary_written_in_place_is_caught(tmp_path: Path) -> None:
    assert _IN_PLACE != _WRITER
    with pytest.raises(AssertionError, match="unfinished"):
        _kill_and_check(tmp_path, kills=12, seed=2, writer=_IN_PLACE)


@pytest.mark.full
@pytest.mark.slow
def test_killed_writer_often(tmp_path: Path) -> None:
    _kill_and_check(tmp_path, kills=40, seed=1)
