"""What every registered router keeps, under each selection it allows; a new router is found by itself.

Letters: B sequences, S tokens each, N real tokens, d hidden size, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from router_cases import (
    EXPERTS,
    HIDDEN,
    LEARNED,
    PAIRS,
    ROUTERS,
    ids_of,
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
from spectra_exp.routing.selection import PLAIN, SELECTIONS, capacity
from spectra_exp.routing.sequence import ENCODERS

NOISY = [name for name in ROUTERS if {"jitter", "noise"} & set(vars(router_class(name).Config()))]
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
    layer, (b, s) = layer_of(settings_of(name, top_k, rule)), (3, 7)
    output, record = run_layer(layer, normal(b, s, HIDDEN), training)
    n = b * s
    assert output.shape == (b, s, HIDDEN) and output.isfinite().all()
    assert record.chosen_NE.shape == (n, EXPERTS) and record.chosen_NE.dtype == torch.bool
    assert record.weights_NE.shape == (n, EXPERTS) and record.weights_NE.dtype == torch.float32
    per_token_N, per_expert_E = record.chosen_NE.sum(1), record.chosen_NE.sum(0)
    limit = capacity(n, EXPERTS, top_k, 1.25)
    in_force = layer.rule_in_force(training)
    assert in_force.name == (rule if training or not SELECTIONS[rule].sees_other_tokens else PLAIN)
    most = in_force.most_assignments(n, EXPERTS, top_k, 1.25)
    assert most is None or per_token_N.sum() <= most
    assert not in_force.at_most_k or per_token_N.max() <= top_k
    match in_force.name:
        case "topk":
            assert (per_token_N == top_k).all()  # evaluation is dropless
        case "quota":
            assert per_expert_E.max() <= limit and per_token_N.min() >= 1
        case "expert_choice":
            assert (per_expert_E == limit).all()
    assert not record.weights_NE[~record.chosen_NE].any() and (record.weights_NE >= 0).all()
    sums_N = record.weights_NE.sum(1)[per_token_N > 0]
    if not router_class(name).normalizes:
        assert (sums_N > 0).all()
    elif top_k > 1:
        torch.testing.assert_close(sums_N, torch.ones_like(sums_N))
    else:
        assert (sums_N > 0).all() and (sums_N <= per_token_N[per_token_N > 0] + 1e-6).all()
    if record.probs_NE is not None:
        torch.testing.assert_close(record.probs_NE.sum(1), torch.ones(n))
    for values in (*record.losses.values(), *record.figures.values()):
        assert values.ndim == 0 and values.isfinite()
    if training:
        named = layer.router.loss_coefficients(0, 100)
        assert set(record.losses) == set(named) and all(c > 0 for c in named.values())
    else:
        assert not record.losses


@each_learned
@pytest.mark.parametrize("top_k", [1, 2])
def test_the_output_alone_trains_every_parameter(name, top_k, monkeypatch):
    """Without any router loss: the gradient comes through the combine weights. The layer has one below it."""
    hidden_BSd, probe_BSd = normal(3, 7, HIDDEN), normal(3, 7, HIDDEN, seed=1)

    def gradients():
        layer = layer_of(settings_of(name, top_k))
        below = layer.router(inputs_of(seed=2)).carry_BSED
        below = None if below is None else below.detach()
        (run_layer(layer, hidden_BSd, True, carry_BSED=below)[0] * probe_BSd).sum().backward()
        return {n: p.grad for n, p in layer.router.named_parameters()}

    found = gradients()
    assert found and all(g is not None and g.isfinite().all() and g.abs().max() > 1e-6 for g in found.values()), found
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
    """Three documents of five tokens, alone and padded to eight with NaN: the same routing, the same output."""
    layer, hidden_BSd, ids_BS = layer_of(settings_of(name, 2, rule)), normal(3, 5, HIDDEN), ids_of(3, 5)
    output, record = run_layer(layer, hidden_BSd, training, ids=ids_BS)
    places = {"left": [3, 4, 5, 6, 7], "right": [0, 1, 2, 3, 4], "holes": [0, 2, 3, 5, 7]}[side]
    padded, mask_BS = torch.full((3, 8, HIDDEN), torch.nan), torch.zeros(3, 8, dtype=torch.bool)
    padded[:, places], mask_BS[:, places] = hidden_BSd, True
    padded_ids = torch.zeros(3, 8, dtype=torch.long)
    padded_ids[:, places] = ids_BS
    padded_output, padded_record = run_layer(layer, padded, training, mask_BS, padded_ids)
    assert torch.equal(padded_record.chosen_NE, record.chosen_NE)
    torch.testing.assert_close(padded_record.weights_NE, record.weights_NE, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded_output[:, places], output, atol=1e-5, rtol=1e-4)
    assert not padded_output[~mask_BS].any()
    for term, value in record.losses.items():
        torch.testing.assert_close(padded_record.losses[term], value, atol=1e-5, rtol=1e-4)


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
    """State moves in commit and after_step alone, so a pass may be run twice."""
    router = router_of(settings_of(name))
    before = {n: b.clone() for n, b in router.named_buffers()}
    router(inputs_of(training=training))
    assert all(torch.equal(b, before[n]) for n, b in router.named_buffers())


@each_router
def test_state_round_trip(name):
    router, inputs = router_of(settings_of(name)), inputs_of(training=True)
    router.commit(router(inputs).updates)
    router.after_step(torch.tensor([9.0, 1.0, 1.0, 1.0]), 1.0)
    other = router_of(settings_of(name), seed=1)
    expected, fresh = router(inputs_of()).scores_NE, other(inputs_of()).scores_NE
    other.load_state_dict(router.state_dict())
    assert torch.equal(other(inputs_of()).scores_NE, expected)
    assert name not in LEARNED or not torch.equal(fresh, expected)


@each_router
def test_noise_depends_on_its_seed_alone(name):
    router = router_of(settings_of(name))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = router(inputs_of(training=True)).scores_NE
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(router(inputs_of(training=True)).scores_NE, first)
    other = router(inputs_of(training=True, noise_seed=4)).scores_NE
    assert torch.equal(other, first) == (name not in NOISY)
    evaluated = [router(inputs_of(noise_seed=seed)).scores_NE for seed in (3, 4)]
    assert torch.equal(*evaluated)


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
    flops = router_of(settings_of(name)).flops_per_token()
    assert flops >= 0 and (flops > 0) == (name in LEARNED)


@each_pair
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_padding_alone(name, rule, training):
    layer = layer_of(settings_of(name, 2, rule))
    output, record = run_layer(layer, normal(2, 4, HIDDEN), training, torch.zeros(2, 4, dtype=torch.bool))
    assert not output.any() and record.chosen_NE.shape == (0, EXPERTS)
