"""What Tab completes: by the words so far, in a real bash, installed by one command and once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spectra_exp.cli import VERBS, command
from spectra_exp.completion.command import SCRIPT
from spectra_exp.completion.query import candidates
from spectra_exp.config.tree import option_files, project_root


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("spectra-exp repo", ["report "]),
        ("spectra-exp tables st", ["study="]),
        ("spectra-exp tables study=b_s", ["study=b_sinkhorn "]),
        ("spectra-exp study sh", ["show "]),
        ("spectra-exp study show json=t", ["json=true"]),
        ("spectra-exp study show b_sinkhorn osr=p", ["osr=paper "]),
        ("spectra-exp run baseline=switch_top2", ["baseline=switch_top2 "]),
        ("spectra-exp run router=switch trainer.max_st", ["trainer.max_steps="]),
        ("spectra-exp run osr.solver=si", ["osr.solver=sinkhorn"]),
        ("spectra-exp run ablations=co", ["ablations=core "]),
        ("spectra-exp archive ver", ["verify "]),
        ("spectra-exp nothing ", []),
        ("spectra-exp zzz", []),
        ("spectra-exp run see", ["seed="]),
    ],
)
def test_a_word_becomes_what_there_is(line: str, wanted: list[str]) -> None:
    assert candidates(line) == wanted


def test_a_new_word_offers_all() -> None:
    assert candidates("spectra-exp ") == sorted(f"{verb} " for verb in VERBS)
    assert {f"router={name} " for name in option_files("router")} <= set(candidates("spectra-exp run router="))
    assert "router." in candidates("spectra-exp search ") and "seed=" in candidates("spectra-exp run -m ")


@pytest.mark.parametrize("broken", ["", "import nowhere\n"])
def test_keys_of_ones_own_router_are_among_them(tmp_path: Path, broken: str) -> None:
    shutil.copytree(project_root() / "examples" / "my_router", tmp_path, dirs_exist_ok=True)
    source = tmp_path / "my_router.py"
    source.write_text(broken + source.read_text())
    asked = [sys.executable, "-m", "spectra_exp", "completion", "query", "spectra-exp run router.sharpn"]
    ended = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ([] if broken else ["router.sharpness="]) and not ended.stderr


def test_bash_shows_them(tmp_path: Path) -> None:
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash")
    (tmp_path / "spectra-exp").write_text(f'#!/bin/sh\nexec {sys.executable} -m spectra_exp "$@"\n')
    (tmp_path / "spectra-exp").chmod(0o755)
    asked = (
        "COMP_LINE='spectra-exp run -m router=swi'; COMP_POINT=${#COMP_LINE}; _spectra_exp; "
        'printf "%s|" "${COMPREPLY[@]}"; complete -p spectra-exp'
    )
    script = f"PATH={tmp_path}:$PATH\n{SCRIPT}\n{asked}"
    ended = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=True)
    # Bash has the word from the "=" on.
    assert ended.stdout.startswith("switch |complete ")


def test_it_is_installed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "rc"
    start.write_text("alias a=b")
    for _ in range(2):
        assert command(["completion", "install", f"file={start}"]) == 0
    *first, line = start.read_text().splitlines()
    assert first == ["alias a=b"] and line.startswith("source ")
    assert Path(line.split('"')[1]).read_text() == SCRIPT
    assert line in capsys.readouterr().out
    assert command(["completion", "uninstall"]) == 2
    assert command(["completion", "show", "--help"]) == 0


def test_it_is_installed_in_a_file_of_any_encoding_and_in_no_folder(tmp_path: Path) -> None:
    start = tmp_path / "rc"
    start.write_bytes(b"# caf\xe9\n")
    assert command(["completion", "install", f"file={start}"]) == 0
    assert start.read_bytes().startswith(b"# caf\xe9\nsource ")
    assert command(["completion", "install", f"file={tmp_path}"]) == 2
    assert not list(tmp_path.parent.glob(".spectra-exp*"))
