"""Temperatures learned with the router. Letters: N real tokens, E experts."""

from __future__ import annotations

import pytest
import torch
from router_cases import EXPERTS, HIDDEN, LEARNED, inputs_of, layer_of, normal, router_of, run_layer, settings_of

from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.learned_temperature import LOWEST, make_learned_temperature
from spectra_exp.routing.osr import OsrConfig
from spectra_exp.routing.sinkhorn import sinkhorn
from spectra_exp.routing.temperature import TemperatureConfig

KINDS = ["global", "layer", "expert", "token"]
SHAPES = {"global": (1, 1), "layer": (1, 1), "expert": (1, EXPERTS), "token": (21, 1)}


def module_of(kind: str, value: float = 1.0):
    module = make_learned_temperature(kind, value, HIDDEN, EXPERTS)
    module.reset_parameters()
    return module


def with_temperature(settings: MoeSettings, kind: str, value: float = 1.0) -> MoeSettings:
    settings.temperature = TemperatureConfig(value=value, learned=kind)
    return settings


@pytest.mark.parametrize("value", [0.01, 0.7, 1.0, 3.0, 60.0])
@pytest.mark.parametrize("kind", KINDS)
def test_starts_at_its_value(kind, value):
    temperature = module_of(kind, value)(inputs_of())
    assert temperature.shape == SHAPES[kind]
    torch.testing.assert_close(temperature, torch.full(SHAPES[kind], value), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_positive_whatever_is_learned(kind):
    module = module_of(kind)
    with torch.no_grad():
        module.offset.fill_(-1e4)
    assert (module(inputs_of()) >= LOWEST * 0.999).all()
    # Planted fault: softplus alone underflows to 0.
    assert float(torch.nn.functional.softplus(module.offset).detach().max()) == 0


def test_token_temperature_sees_its_token_and_skips_padding():
    module = module_of("token")
    with torch.no_grad():
        module.slope.copy_(normal(HIDDEN))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 3:] = False
    whole, real = module(inputs_of()), module(inputs_of(mask_BS=mask))
    assert whole.std() > 0.1 and real.shape == (17, 1)
    torch.testing.assert_close(real, whole[mask.flatten()])
    assert module.latest == real.mean()
    assert module(inputs_of(mask_BS=torch.zeros_like(mask))).shape == (0, 1)
    assert module.latest == real.mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEARNED)
def test_at_the_start_it_routes_as_the_constant_does(name, kind):
    constant = layer_of(settings_of(name))
    learned = layer_of(with_temperature(settings_of(name), kind, 1.7))
    constant_router = constant.router
    hidden = normal(3, 7, HIDDEN)
    forward = constant_router.forward
    constant_router.forward = lambda inputs: forward(_at(inputs, 1.7))
    for training in (True, False):
        (a, record), (b, found) = (run_layer(layer, hidden, training) for layer in (constant, learned))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert torch.equal(record.chosen_NE, found.chosen_NE)


def _at(inputs, temperature):
    inputs.temperature = temperature
    return inputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEARNED)
def test_it_learns_from_the_output_alone(name, kind):
    layer = layer_of(with_temperature(settings_of(name), kind))
    (run_layer(layer, normal(3, 7, HIDDEN), True)[0] * normal(3, 7, HIDDEN, seed=1)).sum().backward()
    for parameter in layer.router.learned_temperature.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0


def test_a_temperature_per_expert_divides_that_experts_logits():
    layer = layer_of(with_temperature(settings_of("switch"), "expert"))
    with torch.no_grad():
        layer.router.learned_temperature.offset.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    inputs = inputs_of()
    inputs.temperature = layer.router.learned_temperature(inputs)
    expected = layer.router.linear(inputs.hidden_BSd).flatten(0, 1) / (
        LOWEST + torch.nn.functional.softplus(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    )
    torch.testing.assert_close(layer.router(inputs).logits_NE, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, EXPERTS), (21, 1)])
def test_spectra_trains_and_infers_by_the_same_order(shape):
    """Potentials select in training as they do in inference, also where each expert has an epsilon of its own."""
    osr = OsrConfig(training="potentials", potentials="hard", sinkhorn_inference="dual", repulsion_weight=0.0)
    router = router_of(settings_of("spectra", osr=osr))
    router.hard_potentials_E.copy_(torch.tensor([0.3, -0.1, 0.0, -0.2]))
    temperature = 0.2 + 3 * torch.rand(shape, generator=torch.Generator().manual_seed(1))
    trained = router(inputs_of(training=True, temperature=temperature))
    evaluated = router(inputs_of(temperature=temperature))
    assert torch.equal(trained.scores_NE.argsort(-1), evaluated.scores_NE.argsort(-1))
    if shape == (1, EXPERTS):
        # Planted fault: g - C, which is not divided, ranks otherwise.
        undivided = router.hard_potentials_E - trained.tensors["cost"]
        assert not torch.equal(undivided.argsort(-1), evaluated.scores_NE.argsort(-1))


@pytest.mark.parametrize("shape", [(1, 1), (1, EXPERTS)])
def test_potentials_give_the_plan_back_under_learned_epsilons(shape):
    """softmax((g - C) / epsilon) is the plan's row, as it is for one epsilon."""
    cost, epsilon = normal(40, EXPERTS), 0.3 + torch.rand(shape, generator=torch.Generator().manual_seed(2))
    plan = sinkhorn(cost, epsilon, 30)
    torch.testing.assert_close(torch.softmax((plan.potentials_E - cost) / epsilon, -1), plan.plan_NE)
    assert plan.potentials_E.shape == (EXPERTS,)
