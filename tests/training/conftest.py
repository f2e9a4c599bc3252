from __future__ import annotations

from pathlib import Path

import pytest

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.runs.execute import Plan, plan

# A run of seconds: two layers, short blocks, a small evaluation set.
SMALL = [
    "model.num_layers=2", "model.hidden_size=32", "model.num_heads=2", "model.expert_size=32", "model.num_experts=4",
    "router.dim=4", "data.sequence_length=32", "data.train_words=20000", "data.validation_words=4000",
    "data.vocabulary_size=512", "data.evaluation_tokens=1024", "data.probe_tokens=256", "trainer.max_steps=12",
    "trainer.batch_size=4", "trainer.log_every=3", "trainer.checkpoint_every=4", "logger.progress=false",
]  # fmt: skip


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
