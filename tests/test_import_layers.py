"""The layers of packages that pyproject.toml declares, and that import-linter sees what is against them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo", str(ROOT / "pyproject.toml")]


def lint(source: Path) -> subprocess.CompletedProcess:
    return subprocess.run(COMMAND, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True)


def test_every_import_goes_down_the_layers_and_no_package_has_a_circle() -> None:
    found = lint(ROOT / "src")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "2 kept, 0 broken" in found.stdout


# A file, what is added to it, and what import-linter then names.
FAULTS = {
    "up in a function": ("foundations/errors.py", "\ndef late():\n    from spectra_exp.runs import folder", "runs"),
    "up for a type": ("moe/config.py", "\nif TYPE_CHECKING:\n    from spectra_exp.cli import main", "cli"),
    "a package of no layer": ("new_package/__init__.py", "", "new_package"),
    "a circle": ("statistics/intervals.py", "\ndef late():\n    from spectra_exp.statistics import trends", "trends"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_against_the_layers_is_found(tmp_path: Path, fault: str) -> None:
    name, added, said = FAULTS[fault]
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "src" / "spectra_exp" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{added}\n")
    found = lint(tmp_path / "src")
    assert found.returncode == 1 and said in found.stdout, found.stdout + found.stderr


@pytest.mark.parametrize("module", ["spectra_exp.moe.attention", "spectra_exp.moe.families", "spectra_exp.moe.source"])
def test_a_module_of_the_model_can_be_the_first_that_is_imported(module: str) -> None:
    # transformers' Auto classes, which these import, have ours registered: not in the middle of our own imports.
    found = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
