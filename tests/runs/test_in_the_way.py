"""What lies in a run's way, or belongs to another user, is named in one line before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.runs.folder import RunFolder

NOBODY = 65534
FOLDERS = (".hydra", "routing", "checkpoints", "analysis")
FILES = (
    "train.log",
    "summary.json",
    "config.yaml",
    "history.parquet",
    "documents.parquet",
    "environment.json",
    ".hydra/overrides.yaml",
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs", "r-00000000")
    with run.hold():
        run.config.write_text("seed: 0")
        staging = run.stage_checkpoint(10)
        (staging / "model.safetensors").write_bytes(b"weights")
        run.commit_checkpoint(staging, 10)
    return run


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:
    """The rest of the test is another user's, who may enter every folder above."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    place = tmp_path
    while place != place.parent:
        # The group stays root's.
        if place.stat().st_mode & 0o055 != 0o055:
            place.chmod(place.stat().st_mode | 0o055)
        place = place.parent
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def refused(run: RunFolder) -> str:
    with pytest.raises(SpectraError) as caught, run.hold():
        run.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("dangling", [False, True])
def test_what_is_no_folder(run: RunFolder, name: str, dangling: bool) -> None:
    path = run.path / name
    if path.is_dir():
        path.rename(run.path / "elsewhere")
    path.symlink_to("/nowhere/at/all") if dangling else path.write_text("precious")
    said = refused(run)
    assert said.startswith(f"{path}: a folder belongs here") and (dangling or path.read_text() == "precious")


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file(run: RunFolder, name: str) -> None:
    path = run.path / name
    path.unlink(missing_ok=True)
    (path / "precious").mkdir(parents=True)
    assert refused(run).startswith(f"{path}: a file belongs here") and (path / "precious").is_dir()
    assert run.status() == "unfinished"


@pytest.mark.parametrize("name", [".lock", ".lock-holder.json"])
def test_a_folder_in_the_lock_s_place(run: RunFolder, name: str) -> None:
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir()
    assert refused(run).startswith(f"{run.path / name}: cannot be written (Is a directory)")


def test_a_file_in_the_run_s_place(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs", "r-00000000")
    run.path.parent.mkdir()
    run.path.write_text("precious")
    assert str(run.path) in refused(run) and run.path.read_text() == "precious"
    assert run.status() == "missing"


def test_nothing_in_the_way(run: RunFolder) -> None:
    with run.hold():
        run.check()


def test_another_user_s_folder_and_lock(run: RunFolder, nobody: None) -> None:
    said = refused(run)
    assert "Permission denied, " in said and "belongs to user root" in said
    os.seteuid(0)
    run.path.chmod(0o777)
    os.seteuid(NOBODY)
    said = refused(run)
    assert said.startswith(f"{run.path / '.lock'}: cannot be written (Permission denied, {run.path / '.lock'} belongs")


def test_another_user_s_private_folder_and_summary(run: RunFolder, nobody: None) -> None:
    os.seteuid(0)
    (run.path / ".lock").chmod(0o666)
    run.summary.write_text("{}")
    run.summary.chmod(0o600)
    for path in (run.path, run.checkpoints_folder, run.checkpoints_folder / "step-00000010"):
        path.chmod(0o777)
    os.seteuid(NOBODY)
    assert refused(run).startswith(f"{run.summary}: may not be read by this user")
    os.seteuid(0)
    run.path.chmod(0o700)
    os.seteuid(NOBODY)
    assert run.status() == "unfinished" and "belongs to user root" in refused(run)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "."])
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(run: RunFolder, nobody: None, name: str) -> None:
    path = run.checkpoints_folder / "step-00000010" / name
    os.seteuid(0)
    path.chmod(0o600)
    os.seteuid(NOBODY)
    for look in (run.latest_checkpoint, run.resumable_checkpoint):
        with pytest.raises(SpectraError, match=r"may not be read by this user \(Permission .* root\)") as caught:
            look()
        assert str(path) in str(caught.value)
