"""Composing asks nothing of its caller: schemas and variables are there whoever composes first."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_store import ConfigStore

from spectra_exp.config import compose
from spectra_exp.config.schema import GROUPS


def test_the_first_to_compose_has_its_schemas_and_variables(monkeypatch) -> None:
    store = ConfigStore.instance()
    kept = {name: node for name, node in store.repo.items() if name not in (*GROUPS, "schema.yaml")}
    monkeypatch.setattr(store, "repo", kept)
    for name in ("SPECTRA_ROOT", "SPECTRA_OUTPUTS"):
        monkeypatch.delenv(name, raising=False)
    compose._compose_groups.cache_clear()
    experiment = compose.load_experiment(["router=switch"])
    assert experiment.router.name == "switch"
    assert Path(experiment.outputs).is_absolute()
