"""Each check finds the fault that it is for, planted in three families, and nothing in the sound model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from doctor_cases import batches, stock
from planted import PLANTS, Plant
from reports import REPORTS, reports_table

from spectra_exp.config.tree import project_root
from spectra_exp.doctor import doctor
from spectra_exp.doctor.registry import checks

CASES = [pytest.param(p, f, id=f"{p.check}{p.name and '-' + p.name}-{f}") for p in PLANTS for f in p.families]


def found(plant: Plant, family: str, change) -> str:
    model = stock(family, **plant.changes)
    trainer = change(model)
    try:
        return doctor(model, batches(), trainer, checks=(plant.check,)).status(plant.check)
    finally:
        getattr(model, "restore", lambda: None)()


@pytest.mark.parametrize(("plant", "family"), CASES)
def test_a_planted_fault_is_found(plant: Plant, family: str) -> None:
    assert found(plant, family, plant.sound) in ("ok", "does not apply")
    assert found(plant, family, plant.plant) == plant.status


def test_every_check_has_a_planted_fault_in_three_families() -> None:
    planted = {plant.check: set(plant.families) for plant in PLANTS}
    assert planted.keys() == checks().keys() and all(len(families) >= 3 for families in planted.values())


def test_every_public_report_is_planted_and_in_the_docs() -> None:
    assert {(one.check, one.plant) for one in REPORTS} <= {(plant.check, plant.name) for plant in PLANTS}
    assert reports_table() in (project_root() / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_the_model_is_left_as_it_was() -> None:
    model = stock("deepseek_v3").train()
    model.model.layers[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [p.requires_grad for p in model.parameters()]
    doctor(model, batches())
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items()) and model.training
    assert trained == [p.requires_grad for p in model.parameters()] and all(p.grad is None for p in model.parameters())
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not any("spectra_exp" in repr(hook) for hook in hooks)


def test_a_trainers_micro_batches_are_those_of_the_check() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(gradient_accumulation_steps=4, world_size=2))
    report = doctor(stock("mixtral"), batches(), trainer, checks=("auxiliary_accumulation",))
    assert report.findings[0].outcome.figure == pytest.approx(8, rel=1e-2)
