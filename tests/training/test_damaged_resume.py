"""A run whose folder was damaged while it was stopped ends with the numbers of one that never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from test_runs import stable, stop_at

from spectra_exp.runs.folder import RunFolder
from spectra_exp.training import recorder as recorder_module
from spectra_exp.training.execute import execute


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(folder: RunFolder) -> None:
    a, b = (folder.routing / f"step-{step:08d}.npz" for step in (1, 6))
    a_bytes, b_bytes = a.read_bytes(), b.read_bytes()
    a.write_bytes(b_bytes)
    b.write_bytes(a_bytes)


def add(folder: RunFolder) -> None:
    shutil.copyfile(folder.routing / "step-00000001.npz", folder.routing / "step-00000008.npz")


# What is done to a run stopped after step 7, and where it then goes on from: it has checkpoints of 1, 3, 6 and 7.
DAMAGE: dict[str, tuple[Callable[[RunFolder], object], str | None]] = {
    "no history": (lambda f: f.history.unlink(), "step-00000007"),
    "no history in the checkpoint": (lambda f: (f.checkpoints()[0] / "history.parquet").unlink(), "step-00000006"),
    "a snapshot too many": (add, "step-00000007"),
    "half a snapshot": (lambda f: cut(f.routing / "step-00000006.npz"), "step-00000003"),
    "swapped snapshots": (swap, None),
    "no manifests": (lambda f: [(path / "manifest.json").unlink() for path in f.checkpoints()], None),
}
KEEP = "trainer.keep_checkpoints=fractions"


def test_any_damage_is_told_and_gone_back_behind(planned, monkeypatch, capsys, tmp_path) -> None:
    p = planned(KEEP)
    assert execute(p, "") == "completed"
    whole, history = stable(p.folder), pd.read_parquet(p.folder.history)
    p.folder.clear()
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        assert execute(p, "") == "stopped"
    shutil.copytree(p.folder.path, tmp_path / "stopped")
    for name, (damage, goes_on_from) in DAMAGE.items():
        shutil.rmtree(p.folder.path)
        shutil.copytree(tmp_path / "stopped", p.folder.path)
        damage(p.folder)
        capsys.readouterr()
        assert execute(planned(KEEP), "") == "completed", name
        told, written = capsys.readouterr().err, p.folder.log.read_text()
        for text in (told, written):
            # Each checkpoint passed over is named on the terminal and in the log.
            assert ("the run starts over" in text) == (goes_on_from is None), name
            for step, older in ((7, 6), (6, 3), (3, 1)):
                passed_over = goes_on_from is None or step > int(goes_on_from[-1])
                said = f"step-{older:08d}, the next older one, is looked at"
                assert (said in text) == passed_over, (name, step)
            assert ("there is no older one" in text) == (goes_on_from is None), name
        if goes_on_from is not None:
            assert f"going on from {goes_on_from}" in written, name
        assert stable(p.folder) == whole, name
        assert history.equals(pd.read_parquet(p.folder.history)), name
        assert "step-00000008" not in {path.stem for path in p.folder.routing.iterdir()}, name


def test_a_checkpoint_of_another_run_of_the_same_shape_is_refused(planned, monkeypatch, capsys) -> None:
    stop_at(monkeypatch, 7)
    ours, theirs = planned(), planned("seed=1")
    execute(ours, "")
    execute(theirs, "")
    monkeypatch.undo()
    shutil.rmtree(ours.folder.checkpoints_folder)
    shutil.copytree(theirs.folder.checkpoints_folder, ours.folder.checkpoints_folder)
    before = sorted(ours.folder.routing.iterdir())
    capsys.readouterr()
    assert execute(planned(), "") == "failed"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"made by another run, {theirs.folder.run_id}" in line and "force=true" in line
    assert sorted(ours.folder.routing.iterdir()) == before


def test_a_run_made_by_two_versions_of_the_code_is_stale_for_ever(planned, monkeypatch, capsys) -> None:
    own = recorder_module.code_version()
    p = planned()
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        patch.setattr(recorder_module, "code_version", lambda plugins: "edited")
        execute(p, "")
    assert execute(planned(), "") == "completed"
    assert "the code changed since this run began" in capsys.readouterr().err
    assert p.folder.read_summary()["fingerprints"]["code"] == f"edited+{own}"
    assert execute(planned(), "") == "completed"
    said = capsys.readouterr().err
    assert "already completed by other code than today's" in said and "refresh=stale" in said
    assert execute(planned("refresh=stale"), "") == "completed"
    assert p.folder.read_summary()["fingerprints"]["code"] == own
    execute(planned(), "")
    assert "already completed; force=true" in capsys.readouterr().err
    p.folder.history.write_bytes(b"edited")
    execute(planned(), "")
    assert "history.parquet changed since" in capsys.readouterr().err
