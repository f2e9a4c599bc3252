"""A run is what was composed once: here as it was checked, in a worker as Hydra composed it there."""

from __future__ import annotations

import dataclasses

import hydra
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from study_cases import TINY

from spectra_exp import cli
from spectra_exp.config import compose
from spectra_exp.config.compose import load_experiment
from spectra_exp.foundations import stopping
from spectra_exp.studies import work
from spectra_exp.studies.launchers import make_engine
from spectra_exp.training import execute as training

LINES = (
    ["study=x", "osr=paper", "osr.sinkhorn_epsilon=0.1", "trainer.max_steps=5", "seed=3"],
    ["osr=paper", "seed=1"],
    ["ablation=no_gru", "seed=1", "temperature.value=1.3", "router=spectra"],
    ["baseline=hash", "model=exp10", "outputs=/elsewhere"],
    ["debug=smoke", "trainer.max_steps=7", "study='a b, c'"],
    ["trainer.max_steps=9", "debug=smoke", "model.top_k=1"],
    ["study=x", "osr=paper", "osr.sinkhorn_epsilon=0.2", "seed=3", "data=stdlib"],
)
PARALLEL = ["launch=parallel", "launch.jobs=3", "hydra.launcher.verbose=1"]


@pytest.fixture
def executed(monkeypatch):
    """The plans and Hydra's settings that are handed to training, which does not happen."""
    made = []
    monkeypatch.setattr(training, "execute", lambda planned, settings: made.append((planned, settings)) or "completed")
    return made


def in_worker(line: list[str]) -> str:
    """What a worker of joblib does with one job."""
    launcher = make_engine([*line, *PARALLEL], work.run_in_worker).launcher
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, [*line, *PARALLEL])
    place = ("hydra.sweep.dir", "hydra.sweep.subdir")
    return run_job(launcher.task_function, config, *place, launcher.hydra_context).return_value


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_hydra_composes_for_a_worker_is_what_was_checked(line, outputs, monkeypatch):
    found = []
    monkeypatch.setattr(work, "plan", lambda experiment: found.append(experiment))
    monkeypatch.setattr(work, "_attempts", lambda planned, settings: "completed")
    # Where the jobs of a launch lie is made by the launcher.
    line = [f"outputs={outputs}/elsewhere" if word.startswith("outputs=") else word for word in line]
    assert in_worker(line) == "completed"
    expected = load_experiment([*line, *PARALLEL])
    task = [word for word in expected.overrides if not word.startswith("hydra")]
    assert found == [dataclasses.replace(expected, overrides=task)]


def test_a_job_that_was_wrong_after_all_fails_in_one_line(outputs, executed, capsys):
    assert in_worker([*TINY, "trainer.batch_size=3", "trainer.processes=2"]) == "failed"
    assert capsys.readouterr().err.startswith("error: trainer.batch_size: ") and not executed


def test_a_single_run_is_composed_once_and_never_by_hydras_own_command(outputs, executed, monkeypatch, capsys):
    monkeypatch.setattr(hydra, "main", lambda *args, **kwargs: pytest.fail("Hydra composes it again"))
    compose._compose_groups.cache_clear()
    composed, plain = [], compose.compose
    monkeypatch.setattr(compose, "compose", lambda *args, **kwargs: composed.append(args) or plain(*args, **kwargs))
    cli.main([*TINY, "osr=paper", "seed=4"])
    assert composed == [("config", ["osr=paper"])]
    ((planned, settings),) = executed
    assert planned.experiment.seed == 4 and not HydraConfig.initialized()
    shown = yaml.safe_load(settings)
    assert shown["overrides"]["task"] == planned.experiment.overrides and shown["runtime"]["choices"]["osr"] == "paper"


def test_jobs_of_the_same_options_are_composed_once(outputs, executed, monkeypatch):
    compose._compose_groups.cache_clear()
    cli.main(["-m", *TINY, "osr=paper,causal", "seed=0,1,2", "launch.view=false"])
    assert len(executed) == 6 and compose._compose_groups.cache_info().misses == 2


def test_no_run_starts_once_a_stop_was_asked_for(outputs, executed):
    stopping.ask("SIGTERM")
    try:
        assert work.run_here(None) == work.NOT_STARTED == in_worker(TINY)
    finally:
        stopping.ask(None)
    assert not executed
