"""Quantile balancing, prices of an assignment problem, and what all biases have in common, each with its wrong version.

Letters: N real tokens, E experts, K experts per token.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moe_cases import ids_of, model_of
from router_cases import EXPERTS, HIDDEN, inputs_of, normal, router_of, settings_of

from spectra_exp.routing.biased import SCORES
from spectra_exp.routing.quantiles import (
    BINS,
    bounds,
    histogram,
    histogram_quantile,
    needed_bias,
    neighbours,
    quantile,
)
from spectra_exp.routing.routers.bip import dual_bias
from spectra_exp.routing.routers.quantile import QuantileRouter
from spectra_exp.routing.selection import select_topk

QUANTILES = [{"estimator": "exact"}, {"estimator": "histogram"}]
BALANCERS = ["loss_free", "quantile", "bip"]


def skewed(seed: int, b: int = 8) -> torch.Tensor:
    """Tokens with one direction in common, which favours some experts."""
    return normal(b, 64, HIDDEN, seed=seed) + 1.5 * normal(HIDDEN, seed=77)


def imbalance(router, training: bool = False) -> float:
    """CV of the load on data never seen."""
    output = router(inputs_of(8, 64, hidden_BSd=skewed(999), training=training))
    load = select_topk(output.scores_NE, router.top_k).sum(0).double()
    return float(load.std(unbiased=False) / load.mean())


def step(router, *micro_batches: torch.Tensor) -> None:
    """One optimizer step over these hidden states."""
    for hidden_BSd in micro_batches:
        router.commit(router(inputs_of(*hidden_BSd.shape[:2], hidden_BSd=hidden_BSd, training=True)).updates)
    router.after_step(torch.ones(EXPERTS), 1.0)


@torch.no_grad()
def trained(steps: int = 12, **options):
    router = router_of(settings_of("quantile", **options))
    for seed in range(steps):
        step(router, skewed(seed))
    return router


def test_needed_bias_by_hand():
    """Two tokens, three experts, K = 1: the second largest score plus bias is what a token compares with."""
    scores_NE, bias_E = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.6, 0.4]]), torch.tensor([-0.2, 0.0, 0.1])
    # Sums 0.7 0.5 0.2 and 0.0 0.6 0.5, so alpha is 0.5 for both.
    expected = torch.tensor([[-0.4, 0.0, 0.4], [0.3, -0.1, 0.1]])
    torch.testing.assert_close(needed_bias(scores_NE, bias_E, 1), expected)


def test_quantile_by_hand():
    """Ten rows, a share of 3/10: three rows lie below, and the bias is halfway to the fourth."""
    values = torch.arange(10.0)[torch.randperm(10, generator=torch.Generator().manual_seed(0)), None]
    assert quantile(values, 0.3).item() == pytest.approx(2.5)
    assert quantile(values[:1], 0.3).item() == values[0].item()
    assert quantile(values, 0.01).item() == 0.0 and quantile(values, 0.99).item() == 9.0
    expected = np.quantile(values.numpy(), 0.37, method="hazen")
    assert quantile(values, 0.37).item() == pytest.approx(float(expected))


@given(st.data())
def test_selected_values_are_those_of_sorted_columns(data):
    number = data.draw(st.integers(1, 40))
    # Few different ones, so that many tie; a value that is no number comes last.
    values_NE = torch.tensor([0.5, -1.0, 2.0, 3.25, torch.nan])[
        torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=3 * number, max_size=3 * number)))
    ].view(number, 3)
    low = data.draw(st.integers(0, number - 1))
    sorted_NE = values_NE.sort(dim=0).values
    expected = sorted_NE[low], sorted_NE[min(low + 1, number - 1)]
    for found_E, expected_E in zip(neighbours(values_NE, low), expected, strict=True):
        torch.testing.assert_close(found_E, expected_E, rtol=0, atol=0, equal_nan=True)


@given(st.integers(0, 1000), st.integers(1, 60), st.floats(0.05, 0.95))
def test_the_histogram_finds_the_quantile_to_a_bin(seed, num_tokens, share):
    scores_NE = torch.rand(num_tokens, EXPERTS, generator=torch.Generator().manual_seed(seed))
    bias_E = normal(EXPERTS, seed=seed) / 3
    needed_NE = needed_bias(scores_NE, bias_E, 2)
    low, high = bounds(bias_E)
    assert (needed_NE >= low).all() and (needed_NE <= high).all()
    found_E = histogram_quantile(histogram(needed_NE, low, high), low, high, share)
    width = float(high - low) / BINS
    sorted_NE = needed_NE.sort(dim=0).values
    # At least so many values are at or below it, and at most so many well below.
    wanted = share * num_tokens
    assert ((needed_NE <= found_E + width).sum(0) >= wanted - 1e-6).all()
    assert ((needed_NE < found_E - width).sum(0) <= wanted + 1e-6).all()
    assert (found_E >= sorted_NE[0] - width).all() and (found_E <= sorted_NE[-1] + width).all()


@pytest.mark.parametrize("options", QUANTILES, ids=str)
def test_quantile_balances_fresh_data(options, monkeypatch):
    before = imbalance(router_of(settings_of("quantile")))
    assert before > 0.4 and imbalance(trained(**options)) < 0.25 * before
    # Planted fault: the sign of the bias is another one in selection than in the update.
    forward = QuantileRouter.forward

    def flipped(self, inputs):
        output = forward(self, inputs)
        output.scores_NE = output.weights_NE - self.bias_E
        return output

    monkeypatch.setattr(QuantileRouter, "forward", flipped)
    assert imbalance(trained(**options)) > 0.5 * before


@torch.no_grad()
@pytest.mark.parametrize("options", QUANTILES, ids=str)
def test_rounds_on_one_batch_end_in_even_loads(options):
    """One round is not enough, since alpha moves with the bias; the fixed point loads all experts alike."""
    router, hidden_BSd, found = router_of(settings_of("quantile", **options)), skewed(3), []
    for _ in range(21):
        load = select_topk(router(inputs_of(8, 64, hidden_BSd=hidden_BSd)).scores_NE, 2).sum(0).double()
        found.append(float(load.std(unbiased=False) / load.mean()))
        step(router, hidden_BSd)
    assert found[0] > 0.4 and 0.05 < found[1] < 0.3 and found[-1] < 0.005


@torch.no_grad()
@pytest.mark.parametrize("options", QUANTILES, ids=str)
def test_a_step_is_the_quantile_of_all_its_micro_batches(options):
    whole, parts, last = (router_of(settings_of("quantile", **options)) for _ in range(3))
    hidden_BSd = skewed(3)
    step(whole, hidden_BSd)
    step(parts, *hidden_BSd.split([3, 5]))
    step(last, hidden_BSd[3:])
    torch.testing.assert_close(parts.bias_E, whole.bias_E)
    assert whole.bias_E.mean().abs() < 1e-6 < whole.bias_E.abs().max()
    # Planted fault: the last micro-batch alone.
    assert (last.bias_E - whole.bias_E).abs().max() > 1e-3


@torch.no_grad()
def test_the_average_keeps_a_part_of_the_old_bias():
    plain, averaged = router_of(settings_of("quantile")), router_of(settings_of("quantile", ema=0.75))
    for router in (plain, averaged):
        step(router, skewed(3))
    torch.testing.assert_close(averaged.bias_E, 0.25 * plain.bias_E)


@torch.no_grad()
def test_a_step_without_a_training_pass_leaves_the_bias():
    router = trained(2)
    before = router.bias_E.clone()
    router(inputs_of(8, 64, hidden_BSd=skewed(5)))
    router.after_step(torch.ones(EXPERTS), 1.0)
    assert torch.equal(router.bias_E, before)


@torch.no_grad()
def test_each_round_lowers_the_dual_towards_the_assignments_optimum():
    """Against scipy's linear program. Wrong version: prices of the floor(N k / E)-th largest, one place too high."""
    from scipy.optimize import linprog

    scores_NE = torch.rand(24, EXPERTS, generator=torch.Generator().manual_seed(1)) + torch.linspace(0, 0.5, EXPERTS)
    tokens, experts = np.kron(np.eye(24), np.ones(EXPERTS)), np.kron(np.ones(24), np.eye(EXPERTS))
    limits = dict(A_ub=np.vstack([tokens, experts]), b_ub=[2] * 24 + [12] * EXPERTS, bounds=(0, 1))
    optimum = -linprog(-scores_NE.double().numpy().ravel(), **limits).fun

    def dual(bias_E):
        price_N1 = (scores_NE + bias_E).topk(3).values[:, -1:].clamp(min=0)
        return float(2 * price_N1.sum() - 12 * bias_E.sum() + (scores_NE + bias_E - price_N1).clamp(min=0).sum())

    values = [dual(dual_bias(scores_NE, torch.zeros(EXPERTS), 2, rounds)) for rounds in (0, 1, 2, 4, 400)]
    assert all(later <= earlier + 1e-4 for earlier, later in pairwise(values)) and values[1] < values[0] - 0.1
    assert optimum - 1e-3 <= values[-1] < 1.03 * optimum
    bias_E = dual_bias(scores_NE, torch.zeros(EXPERTS), 2, 1)
    price_N1 = scores_NE.topk(3).values[:, -1:]
    wrong_E = -(scores_NE - price_N1).topk(12, dim=0).values[-1].clamp(min=0)
    torch.testing.assert_close(bias_E, -(scores_NE - price_N1).topk(13, dim=0).values[-1].clamp(min=0))
    assert not torch.equal(bias_E, wrong_E)


@torch.no_grad()
def test_a_batch_sets_its_own_prices_and_the_next_starts_from_them():
    router = router_of(settings_of("bip"))
    before = imbalance(router)
    assert before > 0.4 and imbalance(router, training=True) < 0.35 * before
    assert imbalance(router) == before  # a pass moves nothing
    for seed in range(4):
        step(router, skewed(seed))
    assert imbalance(router) < 0.4 * before
    # Planted fault: prices that are forgotten leave inference as it was.
    router.bias_E.zero_()
    assert imbalance(router) == before


@torch.no_grad()
def test_prices_of_a_batch_without_tokens_stay():
    bias_E = torch.tensor([-0.5, 0.0, -0.1, 0.0])
    assert torch.equal(dual_bias(torch.zeros(0, EXPERTS), bias_E, 2, 4), bias_E)


@pytest.mark.parametrize("name", BALANCERS)
def test_the_bias_stays_out_of_the_weights(name):
    router = router_of(settings_of(name))
    plain = router(inputs_of()).weights_NE
    router.bias_E.copy_(torch.tensor([3.0, -3.0, 0.0, 0.5]))
    output = router(inputs_of())
    assert torch.equal(output.weights_NE, plain) and not torch.equal(output.scores_NE, plain)


@pytest.mark.parametrize("name", [*BALANCERS, "spectra"])
def test_state_is_float32_in_a_model_cast_to_bfloat16(name, monkeypatch):
    """Wrong version: a bias that is cast with the model, and forgets its small moves."""
    from spectra_exp.routing.state import Float32State

    def cast():
        model = model_of(name, osr={"potentials": "hard"}).to(torch.bfloat16)
        return {n: b for layer in model.routed_layers for n, b in layer.router.named_buffers() if b.is_floating_point()}

    buffers = cast()
    assert buffers and all(b.dtype == torch.float32 for b in buffers.values())
    monkeypatch.delattr(Float32State, "_apply")
    assert any(b.dtype == torch.bfloat16 for b in cast().values())


def test_sqrt_softplus_by_hand_and_where_it_underflows():
    logits_NE = torch.tensor([[0.0, 1.0, -3.0], [-200.0, -201.0, -300.0], [90.0, 0.0, -14.9999]], requires_grad=True)
    scores_NE, probs_NE = SCORES["sqrt_softplus"](logits_NE)
    plain_NE = torch.nn.functional.softplus(logits_NE.detach().double()).sqrt()
    torch.testing.assert_close(scores_NE.detach().double(), plain_NE, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(probs_NE.sum(1), torch.ones(3))
    torch.testing.assert_close(probs_NE[0].double(), plain_NE[0] / plain_NE[0].sum(), atol=1e-6, rtol=1e-5)
    scores_NE.sum().backward()
    assert logits_NE.grad.isfinite().all() and (logits_NE.grad[0] > 0).all()
    # Planted fault: the root itself has an infinite slope there.
    wrong_NE = torch.tensor([[-200.0]], requires_grad=True)
    torch.nn.functional.softplus(wrong_NE).sqrt().sum().backward()
    assert not wrong_NE.grad.isfinite().all()


def test_a_resumed_step_counts_what_it_would_have_counted(tmp_path):
    """Saved between two steps and loaded, a quantile model goes on to the same bias."""
    from spectra_exp.moe.model import SpectraMoeForCausalLM

    def steps(model, numbers):
        for number in numbers:
            model.set_step(number)
            for micro_batch in range(2):
                ids = ids_of(2, 10, seed=2 * number + micro_batch)
                model(input_ids=ids, labels=ids).loss.backward()
            model.after_optimizer_step(1.0)
        return {n: b.clone() for n, b in model.named_buffers() if n.endswith("bias_E")}

    for settings in (dict(name="quantile"), dict(name="quantile", router=QUANTILES[1]), dict(name="bip")):
        whole = model_of(**settings)
        steps(whole, range(2))
        whole.save_pretrained(tmp_path)
        resumed = SpectraMoeForCausalLM.from_pretrained(tmp_path).train()
        expected, found = steps(whole, range(2, 4)), steps(resumed, range(2, 4))
        assert expected and all(torch.equal(b, found[n]) and b.any() for n, b in expected.items())


@pytest.mark.parametrize("name", ["quantile", "remoe"])
def test_weights_and_state_follow_every_cast_but_one_below_float32(name: str) -> None:
    router = router_of(settings_of(name))
    casts = {torch.float64: torch.float64, torch.float32: torch.float32, torch.bfloat16: torch.float32}
    for asked, expected in casts.items():
        router.to(asked)
        floats = [tensor for tensor in router.state_dict().values() if tensor.is_floating_point()]
        assert floats and {tensor.dtype for tensor in floats} == {expected}
