from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import grimp
import pytest
import torch

import spectra_exp
from spectra_exp.foundations.files import json_text
from spectra_exp.runs.provenance import CODE_OF_RESULTS, code_version, digest_sources, environment, git_state

PACKAGE = Path(spectra_exp.__file__).parent


def _git(folder: Path, *arguments: str) -> str:
    names = {f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    answer = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env={**os.environ, **names}
    )
    return answer.stdout.strip()


def test_environment_says_what_the_contract_names() -> None:
    found = json.loads(json_text(environment(7, {"note": "mine"})))
    assert found["seed"] == 7 and found["note"] == "mine"
    assert found["versions"]["torch"] == torch.__version__
    for name in ("python", "transformers", "datasets", "accelerate", "hydra-core", "numpy"):
        assert found["versions"][name]
    assert found["machine"]["os"] and found["machine"]["cpu"] and found["machine"]["cores"] >= 1
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert found["devices"]["count"] == len(found["devices"]["names"])
    assert found["code_version"] == code_version()
    assert set(found["git"]) == {"commit", "dirty"}


def test_determinism_is_read_at_the_call() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(not before)
        assert environment(0)["determinism"]["deterministic_algorithms"] is not before
    finally:
        torch.use_deterministic_algorithms(before)


def test_the_digest_sees_every_change_of_the_sources_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "package"
    (root / "room").mkdir(parents=True)
    (root / "a.py").write_text("x = 1\ny = 2\n")
    (root / "room" / "b.py").write_text("z = 3\n")
    first = digest_sources(root)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_bytes(b"1")
    (root / "notes.md").write_text("notes")
    shutil.copytree(root, tmp_path / "elsewhere")
    assert digest_sources(root) == first == digest_sources(tmp_path / "elsewhere")

    seen = {first}
    (root / "a.py").write_text("x = 1\n")
    (root / "room" / "b.py").write_text("y = 2\nz = 3\n")
    seen.add(digest_sources(root))  # a line moved to the next file
    (root / "room" / "b.py").rename(root / "room" / "c.py")
    seen.add(digest_sources(root))
    (root / "room" / "c.py").unlink()
    seen.add(digest_sources(root))
    assert len(seen) == 4


def test_only_code_that_can_change_numbers_makes_runs_stale(tmp_path: Path) -> None:
    package = tmp_path / "spectra_exp"
    shutil.copytree(PACKAGE, package)
    version = digest_sources(package, CODE_OF_RESULTS)
    assert version == code_version()
    for kept in ("presentation/style.py", "studies/view.py", "runs/history.py", "cli.py"):
        with (package / kept).open("a") as file:
            file.write("# another colour\n")
    assert digest_sources(package, CODE_OF_RESULTS) == version
    for counted in ("routing/selection.py", "training/callbacks/clock.py", "foundations/devices.py", "runs/ranks.py"):
        with (package / counted).open("a") as file:
            file.write("# another rule\n")
        version, before = digest_sources(package, CODE_OF_RESULTS), version
        assert version != before, counted


def test_every_room_that_training_uses_is_in_the_version_or_keeps_results_alone() -> None:
    """A new room below training would otherwise change numbers under an old version."""
    graph = grimp.build_graph("spectra_exp", cache_dir=None)
    upstream = graph.find_upstream_modules("spectra_exp.training.session")
    used = {name.removeprefix("spectra_exp.") for name in upstream if "." in name}
    counted = {part.removesuffix(".py").replace("/", ".") for part in CODE_OF_RESULTS}
    left = {name for name in used if name not in counted and name.split(".")[0] not in counted}
    assert {name.split(".")[0] for name in left} <= {"runs", "autoload"}, left


def test_git_state(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    nothing = {"commit": None, "dirty": None}
    assert git_state(tmp_path) == nothing
    _git(tmp_path, "init", "-q")
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    assert git_state(package) == nothing  # no commit yet
    _git(tmp_path, "add", "-A")
    _git(tmp_path, "commit", "-q", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert git_state(package) == {"commit": commit, "dirty": False}
    (package / "b.py").write_text("untracked")
    assert git_state(package) == {"commit": commit, "dirty": True}
    # A folder that the repository contains but does not track has no commit of its own.
    installed = tmp_path / "venv" / "package"
    installed.mkdir(parents=True)
    assert git_state(installed) == nothing


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
