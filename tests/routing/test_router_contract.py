"""What every registered router keeps, under each selection it allows; a new router is found by itself.

Letters: B sequences, S tokens each, N real tokens, d hidden size, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from router_cases import (
    HIDDEN,
    LEARNED,
    PAIRS,
    ROUTERS,
    inputs_of,
    layer_of,
    normal,
    router_of,
    run_layer,
    settings_of,
)

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe import layer as layer_module
from spectra_exp.routing.base import router_class
from spectra_exp.routing.losses import router_entropy
from spectra_exp.routing.sequence import ENCODERS
from spectra_exp.testing import routers as checks

NOISY = checks.noisy()
each_pair = pytest.mark.parametrize(("name", "rule"), PAIRS)
each_router = pytest.mark.parametrize("name", ROUTERS)
each_learned = pytest.mark.parametrize("name", LEARNED)


def test_some_routers_were_found():
    assert {"spectra", "switch", "temperature", "hash", "expert_choice"} <= set(ROUTERS)
    assert {"switch", "temperature"} <= set(NOISY)
    with pytest.raises(ConfigError, match="did you mean 'spectra'"):
        router_class("spectr")


@each_pair
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_shapes_and_assignments(name, rule, training, top_k):
    checks.check_shapes_and_assignments(name, rule, training, top_k)


@each_learned
@pytest.mark.parametrize("top_k", [1, 2])
def test_the_output_alone_trains_every_parameter(name, top_k, monkeypatch):
    hidden_BSd = normal(3, 7, HIDDEN)
    checks.check_the_output_alone_trains_every_parameter(name, top_k)
    if top_k == 1 and router_class(name).normalizes:
        # Planted fault: normalised weights at K = 1 teach a router nothing (experts that took two tokens apart).
        normalised = layer_module.assignment_weights
        monkeypatch.setattr(layer_module, "assignment_weights", lambda w, c, _: normalised(w, c, True))
        layer = layer_of(settings_of(name, 1, router_class(name).selections()[0]))
        output, record = run_layer(layer, hidden_BSd, False)
        output.sum().backward()
        assert all(p.grad is None or p.grad.abs().max() < 1e-4 for p in layer.router.parameters())


@pytest.mark.parametrize("name", [n for n in ROUTERS if n not in LEARNED])
def test_a_router_that_learns_nothing_has_no_parameters(name):
    assert not list(router_of(settings_of(name)).parameters())


@each_pair
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", ["left", "right", "holes"])
def test_padding_takes_part_in_nothing(name, rule, training, side):
    checks.check_padding_takes_part_in_nothing(name, rule, training, side)


@pytest.mark.parametrize(
    ("name", "options"), [(name, {}) for name in LEARNED] + [("spectra", {"sequence": encoder}) for encoder in ENCODERS]
)
def test_what_padding_holds_reaches_no_gradient(name, options):
    """NaN and zeros at padding give the same gradients of the weights; a sequence may be padding alone."""
    mask_BS = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    gradients = []
    for filling in (torch.nan, 0.0):
        router = router_of(settings_of(name, **options))
        hidden_BSd = torch.where(mask_BS[..., None], normal(3, 5, HIDDEN), filling)
        output = router(inputs_of(3, 5, hidden_BSd=hidden_BSd, mask_BS=mask_BS, training=True))
        (output.weights_NE * normal(*output.weights_NE.shape, seed=1)).sum().backward()
        gradients.append({n: p.grad for n, p in router.named_parameters() if p.grad is not None})
    assert any(gradient.any() for gradient in gradients[1].values())
    torch.testing.assert_close(*gradients)


@each_router
@pytest.mark.parametrize("training", [True, False])
def test_a_pass_moves_no_buffer(name, training):
    checks.check_a_pass_moves_no_buffer(name, training)


@each_router
def test_state_round_trip(name):
    checks.check_state_round_trip(name)


@each_router
def test_noise_depends_on_its_seed_alone(name):
    checks.check_noise_depends_on_its_seed_alone(name)


@each_router
def test_routing_is_float32_under_autocast(name):
    layer, hidden_BSd = layer_of(settings_of(name)), normal(3, 7, HIDDEN)
    _, plain = run_layer(layer, hidden_BSd, True)
    with torch.autocast("cpu", torch.bfloat16):
        _, record = run_layer(layer, hidden_BSd, True)
        if name in LEARNED:
            # The wrong version, a router left under autocast, rounds.
            rounded = layer.router(inputs_of()).weights_NE
    assert torch.equal(record.weights_NE, plain.weights_NE) and record.weights_NE.dtype == torch.float32
    assert torch.equal(record.chosen_NE, plain.chosen_NE)
    if name in LEARNED:
        exact = layer.router(inputs_of()).weights_NE
        assert not torch.allclose(rounded.float(), exact, atol=1e-7, rtol=1e-6)


def _is_softmax(output) -> bool:
    """Whether the distribution is the softmax of the logits (sigmoid scores saturate at another limit)."""
    return torch.allclose(output.probs_NE, torch.softmax(output.logits_NE, -1), atol=1e-6)


@each_learned
def test_temperature_divides_the_logits(name):
    router = router_of(settings_of(name))
    cold, warm = (router(inputs_of(temperature=t)) for t in (1.0, 4.0))
    torch.testing.assert_close(warm.logits_NE * 4, cold.logits_NE)
    # The shares of ReLU gates are the same at every temperature.
    if name == "remoe":
        torch.testing.assert_close(warm.probs_NE, cold.probs_NE)
    else:
        assert router_entropy(warm.probs_NE) > router_entropy(cold.probs_NE)
    assert _is_softmax(warm) == _is_softmax(cold)


@each_learned
def test_zero_temperature_is_argmax(name):
    """And the second expert is the second best, though its probability underflows to 0 (found by this test)."""
    layer = layer_of(settings_of(name, 2))
    if not _is_softmax(layer.router(inputs_of())):
        pytest.skip("no softmax")
    output = layer.router(replace(inputs_of(), temperature=1e-5))
    best_N2 = (output.logits_NE.double() * 1e-5).topk(2, dim=-1).indices
    torch.testing.assert_close(output.probs_NE.gather(1, best_N2[:, :1]), torch.ones(21, 1))
    chosen_NE = layer.select(output.scores_NE, training_rule=False)
    assert torch.equal(chosen_NE, torch.zeros_like(chosen_NE).scatter_(1, best_N2, True))
    # Planted fault: ranked by probability, all but the best tie at 0.
    wrong_NE = layer.select(output.probs_NE, training_rule=False)
    assert not torch.equal(wrong_NE, chosen_NE)


@each_router
def test_costs_nothing_negative(name):
    checks.check_costs_nothing_negative(name)


@each_pair
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_padding_alone(name, rule, training):
    checks.check_a_batch_of_padding_alone(name, rule, training)
