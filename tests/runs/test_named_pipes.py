"""A named pipe in the place of a run's file keeps no reader waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectra_exp.foundations.files import regular, write_json
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import sealed
from spectra_exp.studies.state import run_state

COMPLETED = {
    "schema": 1,
    "status": "completed",
    "run_id": "a",
    "cell_id": "c",
    "name": "a",
    "label": "A",
    "router": "hash",
    "osr": "none",
    "selection": "topk",
    "temperature": "t1_0",
    "baseline": "hash",
    "ablation": "none",
    "model": "tiny",
    "data": "embedded",
    "seed": 0,
    "metrics": {},
    "metrics_training_rule": {},
    "floors": {},
    "parameters": {},
    "fingerprints": {},
    "max_steps": 3,
    "steps": 3,
}
FILES = (
    "summary.json",
    "config.yaml",
    "environment.json",
    "history.parquet",
    "train.log",
    "progress.json",
    ".lock",
    ".lock-holder.json",
    ".hydra/config.yaml",
    "routing/step-00000003.npz",
    "checkpoints/step-00000003/manifest.json",
)


@pytest.fixture
def soon() -> Iterator[None]:
    """Ends what waits."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError("waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", FILES)
def test_readers_pass_it_over(tmp_path: Path, soon: None, name: str) -> None:
    run = tmp_path / "a"
    for file in FILES:
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_text("{}")
    write_json(run / "summary.json", sealed(run, COMPLETED))
    (run / name).unlink()
    os.mkfifo(run / name)
    stored = StoredRun(run)
    _ = stored.refusal
    stored.examine()
    stored.text(run / name)
    state = run_state(tmp_path, "a").state
    assert state == ("interrupted" if name == "summary.json" else "done")
    assert RunFolder(tmp_path, "a").latest_checkpoint() is None


def test_only_a_file_is_regular(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "missing"):
        with pytest.raises(OSError):
            regular(tmp_path / name)
    (tmp_path / "file").write_text("")
    assert regular(tmp_path / "file") == tmp_path / "file"
