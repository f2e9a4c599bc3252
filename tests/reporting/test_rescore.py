"""Runs of before documents were scored get those scores from a checkpoint, and nothing else of them changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from test_remeasure import Killed, run, trained  # noqa: F401

from spectra_exp.cli import command
from spectra_exp.foundations.files import write_json
from spectra_exp.interpret.rescore import rescore
from spectra_exp.runs import stored
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import sealed


@pytest.fixture
def old(run: Path) -> tuple[Path, pd.DataFrame]:  # noqa: F811
    """A run without the scores of its documents, and what they were."""
    kept = StoredRun(run).scores("documents")
    (run / "documents.parquet").unlink()
    content = json.loads((run / "summary.json").read_text())
    content.pop("seal")
    write_json(run / "summary.json", sealed(run, content))
    assert StoredRun(run).refusal is None
    return run, kept


def test_scores_come_back_as_the_run_left_them(old: tuple[Path, pd.DataFrame], capsys) -> None:
    path, kept = old
    before, history = StoredRun(path).summary, (path / "history.parquet").read_bytes()
    assert command(["rescore", path.name]) == 0
    assert f"{path.name}: {len(kept)} documents scored" in capsys.readouterr().out
    again = StoredRun(path)
    pd.testing.assert_frame_equal(again.scores("documents"), kept)
    assert again.refusal is None and "documents.parquet" in again.summary.seal["files"]
    assert {key: value for key, value in again.summary.items() if key != "rescored"} == before
    assert (path / "history.parquet").read_bytes() == history
    assert command(["rescore", "run=all"]) == 0
    assert "has the scores" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_said(old: tuple[Path, pd.DataFrame], capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(["rescore", old[0].name, "device=cuda"]) == 1
    assert "error: device: cuda was asked for and there is none; give device=cpu" in capsys.readouterr().err


def test_lost_scores_are_written_again_and_nothing_else_is_forgiven(run: Path, capsys, monkeypatch) -> None:  # noqa: F811
    kept = StoredRun(run).scores("documents")
    (run / "documents.parquet").unlink()
    read = Mock(wraps=stored.check_files)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "check_files", read)
        assert f"documents.parquet (`spectra-exp rescore run={run.name}` writes it again)" in StoredRun(run).refusal
    read.assert_called_once()
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config + "# edited\n")
    assert command(["rescore", run.name]) == 1
    assert "config.yaml" in capsys.readouterr().err
    (run / "config.yaml").write_text(config)
    assert command(["rescore", run.name]) == 0
    again = StoredRun(run)
    assert again.refusal is None
    pd.testing.assert_frame_equal(again.scores("documents"), kept)


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_kill_leaves_a_run_that_counts(old: tuple[Path, pd.DataFrame], monkeypatch, killed_at: int) -> None:
    path, kept = old
    replace, writes = os.replace, []

    def kill(source: Path, target: Path) -> None:
        if Path(target).name in ("documents.parquet", "summary.json"):
            writes.append(target)
            if len(writes) == killed_at + 1:
                raise Killed
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", kill)
        rescore(StoredRun(path))
    assert StoredRun(path).refusal is None
    rescore(StoredRun(path))
    assert StoredRun(path).refusal is None
    pd.testing.assert_frame_equal(StoredRun(path).scores("documents"), kept)


def test_what_cannot_be_scored_is_said(old: tuple[Path, pd.DataFrame], capsys) -> None:
    path, _ = old
    content = json.loads((path / "summary.json").read_text())
    content.pop("seal")
    content["metrics"]["val_loss"] += 0.1
    (path / "history.parquet").unlink()
    write_json(path / "summary.json", sealed(path, content))
    assert command(["rescore", path.name]) == 1
    assert "and its checkpoint gives" in capsys.readouterr().err
    shutil.rmtree(path / "checkpoints")
    assert command(["rescore", path.name]) == 1
    error = capsys.readouterr().err
    assert path.name in error and "checkpoint" in error and error.count("\n") == 1
    assert not (path / "documents.parquet").exists()
