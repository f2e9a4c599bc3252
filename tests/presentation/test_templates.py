"""What a template may not name."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from spectra_exp.presentation.html import html_page


def test_an_unknown_name_in_a_template_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_text('{% extends "page.html" %}{% block top %}{{ nothing }}{% endblock %}')
    with pytest.raises(UndefinedError, match="nothing"):
        html_page(tmp_path / "own.html", "T", [])
