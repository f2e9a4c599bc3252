from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectra_exp.foundations import files as atomic
from spectra_exp.foundations.errors import ConfigError, RunInUse, SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.runs.checkpoints import MANIFEST, verify_checkpoint
from spectra_exp.runs.folder import RunFolder, find_run
from spectra_exp.runs.lock import RunLock

SUMMARY: dict[str, Any] = {
    "schema": 1,
    "run_id": "r-00000000",
    "cell_id": "r-11111111",
    "name": "r",
    "label": "R",
    "status": "completed",
    "seed": 0,
    "router": "switch",
    "osr": "none",
    "selection": "topk",
    "temperature": "t1_0",
    "baseline": "none",
    "ablation": "none",
    "model": "tiny",
    "data": "embedded",
    "metrics": {"val_loss": 4.0},
    "floors": {},
    "metrics_training_rule": {},
    "parameters": {"total": 2, "active": 1},
    "fingerprints": {},
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs", "r-00000000")


def _commit(run: RunFolder, step: int, keep: tuple[int, ...] = (), size: int = 100) -> Path:
    staging = run.stage_checkpoint(step)
    (staging / "model.safetensors").write_bytes(bytes([step % 256]) * size)
    (staging / "random").mkdir()
    (staging / "random" / "rank0.pth").write_bytes(b"state")
    return run.commit_checkpoint(staging, step, keep)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_paths_are_the_contract_s(run: RunFolder) -> None:
    names = {
        path.name
        for path in (
            run.config,
            run.hydra,
            run.environment,
            run.history,
            run.routing,
            run.checkpoints_folder,
            run.summary,
            run.log,
        )
    }
    assert names == {
        "config.yaml",
        ".hydra",
        "environment.json",
        "history.parquet",
        "routing",
        "checkpoints",
        "summary.json",
        "train.log",
    }
    assert not run.path.exists()


def test_status(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    assert run.status() == "missing"
    with run.hold():
        assert run.status() == "missing"  # nothing but the lock
        run.config.write_text("seed: 0")
        assert run.status() == "unfinished"
        write_json(run.summary, SUMMARY | {"status": "running"})
        assert run.status() == "running"
    assert run.status() == "unfinished"  # no one runs it any more
    for status in ("completed", "failed", "diverged", "stopped"):
        write_json(run.summary, SUMMARY | {"status": status})
        assert run.status() == status
    assert not caplog.records
    whole = run.summary.read_text()
    for damaged in ("", whole[:40], "[]", '{"schema": 1}', whole.replace('"schema": 1', '"schema": 0')):
        run.summary.write_text(damaged)
        caplog.clear()
        assert run.status() == "unfinished"
        assert len(caplog.records) == 1 and str(run.summary) in caplog.text


def test_a_run_that_failed_before_it_had_metrics_is_failed(run: RunFolder) -> None:
    write_json(run.summary, {"schema": 1, "status": "failed", "error": "no such model"})
    assert run.status() == "failed"


def test_newest_and_kept_checkpoints_stay(run: RunFolder) -> None:
    for step in (10, 20, 30, 40):
        assert verify_checkpoint(_commit(run, step, keep=(20,)))
    assert [p.name for p in run.checkpoints()] == ["step-00000040", "step-00000020"]
    assert _names(run.checkpoints_folder) == ["step-00000020", "step-00000040"]
    assert run.latest_checkpoint() == run.checkpoints()[0]


def test_a_checkpoint_of_the_same_step_is_replaced(run: RunFolder) -> None:
    _commit(run, 10, size=100)
    path = _commit(run, 10, size=50)
    assert (path / "model.safetensors").stat().st_size == 50 and verify_checkpoint(path)
    assert _names(run.checkpoints_folder) == ["step-00000010"]


def test_nothing_there(run: RunFolder, tmp_path: Path) -> None:
    assert run.checkpoints() == [] and run.latest_checkpoint() is None
    assert not verify_checkpoint(tmp_path / "step-00000001") and not verify_checkpoint(tmp_path)
    with pytest.raises(SpectraError, match="no such folder"):
        run.commit_checkpoint(tmp_path / "nowhere", 1)


def test_a_name_that_no_folder_can_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run 'aaa"):
        find_run("a" * 300, tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_seen(run: RunFolder, data: st.DataObject) -> None:
    path = _commit(run, 10)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert verify_checkpoint(path)
    file.write_bytes(content)
    assert not verify_checkpoint(path)


@pytest.mark.parametrize("damage", ["missing file", "extra file", "no manifest", "renamed"])
def test_other_damage_is_seen(run: RunFolder, damage: str) -> None:
    path = _commit(run, 10)
    if damage == "missing file":
        (path / "model.safetensors").unlink()
    elif damage == "extra file":
        (path / "more").write_text("")
    elif damage == "no manifest":
        (path / MANIFEST).unlink()
    else:
        path = path.rename(path.with_name("step-00000020"))
    assert not verify_checkpoint(path)


def test_planted_fault_sizes_alone_miss_a_flipped_byte(run: RunFolder) -> None:
    def sizes_match(path: Path) -> bool:
        text = (path / MANIFEST).read_text()
        return all(f'"size": {p.stat().st_size}' in text for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)

    path = _commit(run, 10)
    model = path / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\xff")
    assert sizes_match(path) and not verify_checkpoint(path)


def test_a_damaged_newest_checkpoint_is_passed_over_with_one_warning(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (10, 20, 30):
        _commit(run, step, keep=(10, 20, 30))
    for step in (20, 30):
        (run.checkpoints_folder / f"step-{step:08d}" / "model.safetensors").write_bytes(b"damage")
    latest = run.latest_checkpoint()
    assert latest is not None and latest.name == "step-00000010"
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    assert "step-00000030" in caplog.records[0].getMessage()


def test_another_runs_checkpoint_in_a_runs_folder_gives_no_model(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    own = _commit(run, 10, keep=(10, 20))
    other = RunFolder(run.path.parent, "other-00000000")
    shutil.copytree(_commit(other, 20), run.checkpoints_folder / "step-00000020")
    assert run.latest_checkpoint() == own
    assert "made by another run, other-00000000" in caplog.text
    # A copied folder under another name is still the run that its summary names.
    copy = RunFolder(run.path.parent, "copy")
    shutil.copytree(other.path, copy.path)
    assert copy.latest_checkpoint() is None
    write_json(copy.summary, {"schema": 1, "status": "stopped", "run_id": "other-00000000"})
    assert copy.latest_checkpoint() == copy.checkpoints()[0]


def test_holding_excludes_others_and_cleans_what_killed_writers_left(run: RunFolder) -> None:
    _commit(run, 10)
    (run.stage_checkpoint(20) / "half").write_text("half")
    (run.checkpoints_folder / ".trash-step-00000005").mkdir()
    (run.path / ".summary.json.77-abcd.tmp").write_text("half")
    run.routing.mkdir()
    (run.routing / ".step-00000010.npz.77-abcd.tmp").write_text("half")
    run.hydra.mkdir()
    with run.hold():
        assert _names(run.checkpoints_folder) == ["step-00000010"]
        assert _names(run.path) == [".hydra", ".lock", ".lock-holder.json", "checkpoints", "routing"]
        assert _names(run.routing) == []
        with pytest.raises(RunInUse), RunFolder(run.path.parent, run.run_id).hold():
            pass
    with RunLock(run.path):
        pass


@pytest.mark.parametrize("finished", [False, True])
def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(run: RunFolder, finished: bool) -> None:
    path = _commit(run, 10)
    aside = path.with_name(".replaced-" + path.name)
    path.rename(aside)
    if finished:
        _commit(run, 10, size=50)
        aside.mkdir(exist_ok=True)
    with run.hold():
        assert run.latest_checkpoint() == path
        assert (path / "model.safetensors").stat().st_size == (50 if finished else 100)
        assert _names(run.checkpoints_folder) == ["step-00000010"]


def test_a_full_disk_at_the_commit_keeps_the_older_checkpoint(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    older = _commit(run, 10)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(SpectraError, match="disk is full"):
            _commit(run, 20)
    assert run.latest_checkpoint() == older
    with run.hold():
        assert _names(run.checkpoints_folder) == ["step-00000010"]


def test_clear_forgets_the_training_and_keeps_the_configuration_and_the_log(run: RunFolder) -> None:
    with run.hold():
        _commit(run, 10)
        for file in (run.config, run.log, run.history, run.environment):
            file.write_text("x")
        write_json(run.summary, SUMMARY)
        os.makedirs(run.routing)
        run.clear()
        assert _names(run.path) == [".lock", ".lock-holder.json", "config.yaml", "train.log"]
        assert run.status() == "unfinished"
