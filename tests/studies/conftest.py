from __future__ import annotations

from pathlib import Path

import pytest

from spectra_exp.config.compose import prepare_environment


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def outputs(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty outputs folder that shares its tokenised data with the other tests."""
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)
    return tmp_path
