from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_run import SMALL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.runs.plan import Plan, plan
from spectra_exp.training.execute import execute


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Outputs of small runs that tests begin from; they take copies and leave these as they are."""
    outputs = tmp_path_factory.mktemp("made")
    (outputs / "cache").symlink_to(cache)
    return outputs


def small_plan(outputs: Path, *overrides: str) -> Plan:
    """The plan of a small run with these overrides."""
    given = {o.split("=")[0] for o in overrides}
    other_router = any(o.startswith(("baseline=", "router=")) and "spectra" not in o for o in overrides)
    drop = {"router.dim"} if other_router else set()
    small = [o for o in SMALL if o.split("=")[0] not in given | drop]
    return plan(load_experiment([*small, f"outputs={outputs}", *overrides]))


@pytest.fixture
def planned(tmp_path: Path, cache: Path):
    """A function from overrides to a Plan of a small run in a folder of its own, the tokenised data shared."""
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)
    return lambda *overrides: small_plan(tmp_path, *overrides)


@pytest.fixture
def finished(planned, made: Path):
    """The same of a run that is completed already; each is trained once."""

    def make(*overrides: str) -> Plan:
        source = small_plan(made, *overrides)
        if not source.folder.summary.exists():
            assert execute(source, "hydra: {}") == "completed"
        own = planned(*overrides)
        shutil.copytree(source.folder.path, own.folder.path)
        return own

    return make
