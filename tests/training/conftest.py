from __future__ import annotations

from pathlib import Path

import pytest
from small_run import SMALL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.runs.plan import Plan, plan


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def planned(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """A function from overrides to a Plan of a small run in a folder of its own, the tokenised data shared."""
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)

    def make(*overrides: str) -> Plan:
        given = {o.split("=")[0] for o in overrides}
        other_router = any(o.startswith(("baseline=", "router=")) and "spectra" not in o for o in overrides)
        drop = {"router.dim"} if other_router else set()
        small = [o for o in SMALL if o.split("=")[0] not in given | drop]
        return plan(load_experiment([*small, f"outputs={tmp_path}", *overrides]))

    return make
