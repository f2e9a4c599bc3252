"""The shared composition of a launch's jobs: exactly what Hydra's own loader gives each of them."""

from __future__ import annotations

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from spectra_exp.studies import loader
from spectra_exp.studies.launchers import make_engine

# The same options with other values come twice: nothing of one job may be left in the next.
LINES = (
    ["study=x", "osr=paper", "osr.sinkhorn_epsilon=0.1", "trainer.max_steps=5", "seed=3"],
    ["osr=paper", "seed=1"],
    ["ablation=no_gru", "seed=1", "temperature.value=1.3"],
    ["baseline=hash", "model=exp10", "outputs=/elsewhere"],
    ["debug=smoke", "trainer.max_steps=7", "study='a b, c'"],
    ["study=x", "osr=paper", "osr.sinkhorn_epsilon=0.2", "seed=3"],
)
PARALLEL = ["launch=parallel", "launch.jobs=3", "hydra.launcher.verbose=1"]


@pytest.mark.parametrize("typed", [[], PARALLEL])
def test_every_job_gets_what_hydra_would_give_it(outputs, typed):
    launcher = make_engine(typed, print).launcher
    own = launcher.hydra_context.config_loader
    plain = ConfigLoaderImpl(own.config_search_path)
    for line in LINES:
        found, expected = (x.load_sweep_config(launcher.config, [*line, *typed]) for x in (own, plain))
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected), line
        assert OmegaConf.is_struct(found) and OmegaConf.is_struct(expected)


def test_jobs_of_the_same_options_are_composed_once(outputs, monkeypatch):
    monkeypatch.setattr(loader, "_COMPOSED", {})
    launcher = make_engine([], print).launcher
    own, made = launcher.hydra_context.config_loader, []
    plain = own.load_configuration
    monkeypatch.setattr(own, "load_configuration", lambda *args: made.append(args[1]) or plain(*args))
    for line in LINES:
        own.load_sweep_config(launcher.config, line)
    assert made == [["osr=paper"], ["ablation=no_gru"], ["baseline=hash", "model=exp10"], ["debug=smoke"]]
