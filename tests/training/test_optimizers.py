from __future__ import annotations

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from spectra_exp.config.schema import OptimConfig
from spectra_exp.training.build import build_model
from spectra_exp.training.optimizers import (
    family,
    gradient_norms,
    make_optimizer,
    make_schedule,
    named_families,
    parameter_groups,
    rate_factor,
)


@pytest.fixture
def model(planned):
    p = planned()
    return build_model(p.experiment, p.corpus)


def test_every_parameter_has_one_family_and_one_group(model) -> None:
    names = [n for named in named_families(model).values() for n, _ in named]
    assert sorted(names) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    for name in ("adamw", "muon"):
        grouped = [n for g in parameter_groups(model, OptimConfig(name=name)) for n in g["names"]]
        assert sorted(grouped) == sorted(names)


def test_families_by_place() -> None:
    assert family("backbone.model.layers.0.mlp.router.sequence.gru.weight_ih_l0") == "router"
    assert family("backbone.model.layers.0.mlp.experts.up") == "experts"
    assert family("backbone.model.layers.0.self_attn.q_proj.weight") == "other"


def test_rates_by_family_reach_the_optimizer(model) -> None:
    config = OptimConfig(learning_rate=1e-3, router_learning_rate=2e-3, expert_learning_rate=3e-3)
    rates = {g["family"]: g["lr"] for g in make_optimizer(model, config).param_groups}
    assert rates == {"other": 1e-3, "router": 2e-3, "experts": 3e-3}
    muon = make_optimizer(model, OptimConfig(name="muon", learning_rate=1e-3, muon_learning_rate=0.05))
    by_kind = {(g["kind"], g["family"]): g["lr"] for g in muon.param_groups}
    assert by_kind[("muon", "experts")] == by_kind[("muon", "other")] == 0.05
    assert by_kind[("adamw", "router")] == 1e-3


def test_muon_takes_hidden_matrices_and_stacked_experts_only(model) -> None:
    groups = parameter_groups(model, OptimConfig(name="muon"))
    muon = {n for g in groups if g["kind"] == "muon" for n in g["names"]}
    assert any(n.endswith("experts.up") for n in muon) and any(n.endswith("q_proj.weight") for n in muon)
    assert not any("embed" in n or "norm" in n or ".router." in n or "lm_head" in n for n in muon)


def test_muon_leaves_embeddings_of_positions_alone() -> None:
    shape = GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=50, n_positions=8, bos_token_id=0, eos_token_id=0)
    groups = parameter_groups(GPT2LMHeadModel(shape), OptimConfig(name="muon"))
    kinds = {name: group["kind"] for group in groups for name in group["names"]}
    assert kinds["transformer.wte.weight"] == kinds["transformer.wpe.weight"] == "adamw"
    assert kinds["transformer.h.0.attn.c_attn.weight"] == "muon"


def test_only_matrices_decay(model) -> None:
    for group in parameter_groups(model, OptimConfig()):
        assert (group["weight_decay"] > 0) == all(p.ndim >= 2 for p in group["params"])


def test_schedule_warms_up_then_falls_to_the_floor() -> None:
    config = OptimConfig(warmup_fraction=0.1, final_fraction=0.1)
    factors = [rate_factor(step, 100, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(factors[9:], factors[10:], strict=False))
    assert factors[-1] == pytest.approx(0.1)
    middle = 10 + (99 - 10) / 2
    assert rate_factor(round(middle), 100, config) == pytest.approx(0.1 + 0.9 * 0.5, abs=0.02)


def test_schedule_drives_every_group(model) -> None:
    optimizer = make_optimizer(model, OptimConfig(name="muon", warmup_fraction=0.5))
    schedule = make_schedule(optimizer, OptimConfig(name="muon", warmup_fraction=0.5), 10)
    peaks = schedule.base_lrs
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([p * 0.2 for p in peaks])


def test_gradient_norms_by_family_by_hand() -> None:
    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = torch.nn.Linear(2, 1, bias=False)
            self.rest = torch.nn.Linear(2, 1)

    toy = Toy()
    toy.router.weight.grad = torch.tensor([[3.0, 4.0]])
    toy.rest.weight.grad = torch.tensor([[1.0, 2.0]])
    toy.rest.bias.grad = torch.tensor([2.0])
    assert gradient_norms(toy) == pytest.approx({"grad_norm_router": 5.0, "grad_norm_other": math.sqrt(9)})
