"""Each check finds the fault that it is for, planted in three families, and nothing in the sound model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from doctor_cases import batches, stock
from planted import PLANTS, Plant, before_blocks, frozen, switched_on
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


OF_LOSS = ("auxiliary_on", "auxiliary_gradient", "auxiliary_form", "auxiliary_accumulation")


@pytest.mark.parametrize("switch", [False, True])
@pytest.mark.parametrize(("family", "option"), [("mixtral", "router_aux_loss_coef"), ("jetmoe", "aux_loss_coef")])
def test_a_coefficient_of_0_is_no_fault_and_what_balances_is_said(family: str, option: str, switch: bool) -> None:
    model = stock(family, **{option: 0.0}, output_router_logits=switch)
    report = doctor(model, batches(), checks=OF_LOSS)
    assert {finding.outcome.status for finding in report.findings} == {"does not apply"}
    note = report.findings[0].outcome.note
    assert note == f"{option}=0: the auxiliary loss is switched off, and no selection bias balances in its place"


def test_a_coefficient_that_is_set_too_late_is_a_fault_where_the_loss_is_added() -> None:
    model = stock("mixtral")
    model.config.router_aux_loss_coef = 0.0
    assert doctor(model, batches(), checks=("auxiliary_on",)).status("auxiliary_on") == "does not apply"
    switched_on(model)
    outcome = doctor(model, batches(), checks=("auxiliary_on",)).findings[0].outcome
    assert outcome.status == "fault" and "router_aux_loss_coef=0, and yet it is added" in outcome.note


def test_a_selection_bias_in_place_of_the_loss_is_said() -> None:
    report = doctor(stock("ernie4_5_moe", router_aux_loss_coef=0.0), batches(), checks=("auxiliary_on",))
    assert report.findings[0].outcome.note.endswith("switched off, and selection biases are what balances")


@pytest.mark.parametrize("generator", [None, torch.Generator()], ids=["global", "own"])
@pytest.mark.parametrize(("family", "own"), [("mixtral", {"auxiliary_form"}), ("deepseek_v3", {"bias_precision"})])
def test_noise_in_evaluation_is_one_fault(family: str, own: set[str], generator: torch.Generator | None) -> None:
    model = stock(family)
    before_blocks(lambda m, h: h + 0.1 * torch.empty_like(h).normal_(generator=generator))(model)
    checks = ("causality", "batch_invariance", "cached_decoding", "modes", "saved_and_loaded", "recomputation")
    report = doctor(model, batches(), checks=(*checks, "twice", *own))
    assert {finding.check.name for finding in report.faults} == {"twice"} | own
    doubts = [finding.outcome for finding in report.findings if finding.check.name in checks]
    assert all(one.status == "doubtful" and "evaluation is not deterministic" in one.note for one in doubts)


def test_an_auxiliary_loss_lost_in_noise_is_doubtful() -> None:
    model = stock("mixtral")
    before_blocks(lambda m, h: h + torch.empty_like(h).normal_(generator=torch.Generator().manual_seed(seeds.pop())))(
        model
    )
    seeds = list(range(10**4))
    outcome = doctor(model, batches(), checks=("auxiliary_on",)).findings[0].outcome
    assert outcome.status == "doubtful" and "training is not deterministic" in outcome.note


def test_a_frozen_router_is_named_as_the_cause() -> None:
    model = stock("mixtral", output_router_logits=True)
    frozen(model)
    gradient, language = doctor(model, batches(), checks=("auxiliary_gradient", "router_gradient")).findings
    said = "the router of model.layers.0.mlp is frozen (requires_grad=False)"
    assert said in gradient.outcome.note and gradient.outcome.place == "model.layers.0.mlp"
    assert language.outcome.status == "ok" and said in language.outcome.note
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    (finding,) = doctor(model, batches(), checks=("router_gradient",)).findings
    assert finding.outcome.status == "does not apply" and "is frozen (requires_grad=False)" in finding.outcome.note
