"""What an installed package must hold beside its modules, and what a template may not name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from spectra_exp.presentation.html import html_page

ROOT = Path(__file__).parents[2]


def test_every_file_beside_the_modules_is_installed_with_them() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    source = ROOT / "src"
    known = {
        path
        for package, patterns in declared.items()
        for pattern in patterns
        for path in (source / package.replace(".", "/")).glob(pattern)
    }
    files = {path for path in source.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert {path for path in files if ".egg-info" not in str(path)} == known and len(known) > 8


def test_an_unknown_name_in_a_template_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_text('{% extends "page.html" %}{% block top %}{{ nothing }}{% endblock %}')
    with pytest.raises(UndefinedError, match="nothing"):
        html_page(tmp_path / "own.html", "T", [])
