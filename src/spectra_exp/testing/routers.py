"""The contract of a router, as functions that raise AssertionError: `check_router(MyRouter)` in a plug-in's own tests.

Letters: B sequences, S tokens each, N real tokens, d hidden size, E experts, K experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectra_exp.routing.base import Router, router_class, routers
from spectra_exp.routing.selection import PLAIN, SELECTIONS, capacity
from spectra_exp.testing.cases import (
    EXPERTS,
    HIDDEN,
    ids_of,
    inputs_of,
    layer_of,
    normal,
    router_of,
    run_layer,
    settings_of,
)


def noisy() -> list[str]:
    """The routers with an option of noise."""
    return [name for name, cls in routers().items() if {"jitter", "noise"} & set(vars(cls.Config()))]


def check_router(cls: type[Router]) -> None:
    """Hold a registered router, with its default options, to what every router keeps. Raises AssertionError.

    Under each selection that it allows, in training and in evaluation, on small layers of 4 experts; some seconds.
    """
    name = cls.Config().name
    assert routers().get(name) is cls, f"{cls.__name__} is not registered: put @register_router above it"
    for training in (True, False):
        check_a_pass_moves_no_buffer(name, training)
        for rule in cls.selections():
            for top_k in (1, 2, 3):
                check_shapes_and_assignments(name, rule, training, top_k)
            for side in ("left", "right", "holes"):
                check_padding_takes_part_in_nothing(name, rule, training, side)
            check_a_batch_of_padding_alone(name, rule, training)
    if cls.learned:
        for top_k in (1, 2):
            check_the_output_alone_trains_every_parameter(name, top_k)
    else:
        assert not list(router_of(settings_of(name)).parameters()), "a router with `learned = False` has parameters"
    check_state_round_trip(name)
    check_noise_depends_on_its_seed_alone(name)
    check_costs_nothing_negative(name)


def check_shapes_and_assignments(name: str, rule: str, training: bool, top_k: int) -> None:
    """Shapes, dtypes, the selection's bounds, and weights that sum as they must; losses that have a coefficient."""
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


def check_the_output_alone_trains_every_parameter(name: str, top_k: int) -> None:
    """Without any router loss: the gradient comes through the combine weights. The layer has one below it."""
    hidden_BSd, probe_BSd = normal(3, 7, HIDDEN), normal(3, 7, HIDDEN, seed=1)

    def gradients() -> dict[str, Tensor | None]:
        layer = layer_of(settings_of(name, top_k))
        below = layer.router(inputs_of(seed=2)).carry_BSED
        below = None if below is None else below.detach()
        (run_layer(layer, hidden_BSd, True, carry_BSED=below)[0] * probe_BSd).sum().backward()
        return {n: p.grad for n, p in layer.router.named_parameters()}

    found = gradients()
    assert found and all(g is not None and g.isfinite().all() and g.abs().max() > 1e-6 for g in found.values()), found


def check_padding_takes_part_in_nothing(name: str, rule: str, training: bool, side: str) -> None:
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


def check_a_pass_moves_no_buffer(name: str, training: bool) -> None:
    """State moves in commit and after_step alone, so a pass may be run twice."""
    router = router_of(settings_of(name))
    before = {n: b.clone() for n, b in router.named_buffers()}
    router(inputs_of(training=training))
    assert all(torch.equal(b, before[n]) for n, b in router.named_buffers())


def check_state_round_trip(name: str) -> None:
    """A saved router goes on as the one it was saved from."""
    router, inputs = router_of(settings_of(name)), inputs_of(training=True)
    router.commit(router(inputs).updates)
    router.after_step(torch.tensor([9.0, 1.0, 1.0, 1.0]), 1.0)
    other = router_of(settings_of(name), seed=1)
    expected, fresh = router(inputs_of()).scores_NE, other(inputs_of()).scores_NE
    other.load_state_dict(router.state_dict())
    assert torch.equal(other(inputs_of()).scores_NE, expected)
    assert not router_class(name).learned or not torch.equal(fresh, expected)


def check_noise_depends_on_its_seed_alone(name: str) -> None:
    """Noise comes from the pass's seed, never from torch's own generator, and there is none in evaluation."""
    router = router_of(settings_of(name))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = router(inputs_of(training=True)).scores_NE
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(router(inputs_of(training=True)).scores_NE, first)
    other = router(inputs_of(training=True, noise_seed=4)).scores_NE
    assert torch.equal(other, first) == (name not in noisy())
    evaluated = [router(inputs_of(noise_seed=seed)).scores_NE for seed in (3, 4)]
    assert torch.equal(*evaluated)


def check_costs_nothing_negative(name: str) -> None:
    """Operations per token are counted, and are some where there are parameters."""
    flops = router_of(settings_of(name)).flops_per_token()
    assert flops >= 0 and (flops > 0) == (router_class(name).learned)


def check_a_batch_of_padding_alone(name: str, rule: str, training: bool) -> None:
    """Nothing is routed, and nothing fails."""
    layer = layer_of(settings_of(name, 2, rule))
    output, record = run_layer(layer, normal(2, 4, HIDDEN), training, torch.zeros(2, 4, dtype=torch.bool))
    assert not output.any() and record.chosen_NE.shape == (0, EXPERTS)
