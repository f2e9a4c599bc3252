"""A stop asked for when nothing is left to stop: the run completes, and says just that."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import SMALL

from spectra_exp import cli
from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations import stopping
from spectra_exp.runs.summary import read_summary
from spectra_exp.training.session import Session


@pytest.fixture
def launch(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """The command line in this process, whose last evaluation (seed 0's) gets a SIGTERM."""
    (tmp_path / "cache").symlink_to(cache)
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    prepare_environment()
    plain = Session._finish

    def interrupted(self):
        if self.experiment.seed == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self)

    monkeypatch.setattr(Session, "_finish", interrupted)
    small = [o for o in SMALL if not o.startswith("trainer.max_steps")]
    yield lambda *typed: cli.main([*small, "trainer.max_steps=2", *typed])
    stopping.ask(None)


def test_a_signal_in_the_last_evaluation_of_a_run(launch, tmp_path, capsys) -> None:
    assert launch() == 0
    assert "stopped" not in capsys.readouterr().err
    (path,) = tmp_path.glob("runs/*/summary.json")
    assert read_summary(path)["status"] == "completed"


@pytest.mark.parametrize("seeds, ends", [("1,0", 0), ("0,1", cli.INTERRUPTED)])
def test_a_signal_in_the_last_evaluation_of_a_multirun(launch, tmp_path, capsys, seeds, ends) -> None:
    """With nothing left it is complete; with a run left it was stopped."""
    assert launch("-m", f"seed={seeds}") == ends
    assert ("goes on from the last checkpoint" in capsys.readouterr().err) == (ends != 0)
    assert len(list(tmp_path.glob("runs/*/summary.json"))) == (2 if ends == 0 else 1)
