"""Every test composes with schemas registered and outputs of its own."""

from __future__ import annotations

import pytest

from spectra_exp.config.compose import prepare_environment


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    prepare_environment()
    return tmp_path / "outputs"
