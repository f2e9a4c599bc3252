"""Interventions on the routing: by hand on two tokens and three experts, and in a whole model."""

from __future__ import annotations

import pytest
import torch
from moe_cases import ids_of, model_of
from torch import Tensor

from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.interventions import (
    Intervention,
    Routing,
    arbitrary,
    intervening,
    next_best,
    swapped,
    switched_off,
)
from spectra_exp.moe.model import SpectraMoeForCausalLM

BOTH = torch.tensor([True, True])


def routing_of(chosen: list, weights: list, raw: list, top_k: int) -> Routing:
    raw_NE = torch.tensor(raw)
    return Routing(torch.tensor(chosen).bool(), torch.tensor(weights), raw_NE, raw_NE, top_k)


# Token 0 uses experts 0 and 1, token 1 experts 1 and 2.
PAIRS = routing_of(
    [[1, 1, 0], [0, 1, 1]], [[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]], [[0.6, 0.2, 0.1], [0.1, 0.4, 0.4]], top_k=2
)
SINGLE = routing_of(
    [[1, 0, 0], [0, 0, 1]], [[0.6, 0.0, 0.0], [0.0, 0.0, 0.5]], [[0.6, 0.1, 0.3], [0.2, 0.3, 0.5]], top_k=1
)


def check(intervention: Intervention, routing: Routing, chosen: list, weights: list) -> None:
    chosen_NE, weights_NE = intervention(routing)
    assert chosen_NE.dtype == torch.bool and chosen_NE.int().tolist() == chosen
    torch.testing.assert_close(weights_NE, torch.tensor(weights))
    # What was handed in is not written to.
    assert not (routing.weights_NE.sum(dim=1) == 0).any()


def test_swapping_moves_tokens_with_their_weights() -> None:
    check(swapped(0, 2), PAIRS, [[0, 1, 1], [1, 1, 0]], [[0.0, 0.25, 0.75], [0.5, 0.5, 0.0]])


def test_switching_off_renormalises_what_is_left_and_a_token_with_nothing_else_gets_nothing() -> None:
    check(switched_off(1), PAIRS, [[1, 0, 0], [0, 0, 1]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    check(switched_off(2), PAIRS, [[1, 1, 0], [0, 1, 0]], [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0]])
    check(switched_off(0), SINGLE, [[0, 0, 0], [0, 0, 1]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])


def test_next_best_takes_the_best_of_the_rest_at_the_former_total() -> None:
    check(next_best(BOTH), SINGLE, [[0, 0, 1], [0, 1, 0]], [[0.0, 0.0, 0.6], [0.0, 0.5, 0.0]])
    check(next_best(torch.tensor([False, True])), SINGLE, [[1, 0, 0], [0, 1, 0]], [[0.6, 0.0, 0.0], [0.0, 0.5, 0.0]])
    # Two of three are taken, so that one is left for each token.
    check(next_best(BOTH), PAIRS, [[0, 0, 1], [1, 0, 0]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    every = routing_of([[1, 1]], [[0.5, 0.5]], [[0.5, 0.5]], top_k=2)
    check(next_best(torch.tensor([True])), every, [[1, 1]], [[0.5, 0.5]])


def test_arbitrary_experts_are_drawn_evenly_at_the_former_total() -> None:
    tokens, experts = 3000, 6
    even = torch.full((tokens, experts), 1 / experts)
    chosen_NE = torch.zeros(tokens, experts, dtype=torch.bool)
    chosen_NE[:, :2] = True
    routing = Routing(chosen_NE, chosen_NE * 0.5, even, even, 2)
    mark_N = torch.arange(tokens) < 2400
    drawn_NE, weights_NE = arbitrary(mark_N, seed=0)(routing)
    assert (drawn_NE.sum(1) == 2).all() and torch.allclose(weights_NE.sum(1), torch.ones(tokens))
    assert torch.equal(drawn_NE[2400:], chosen_NE[2400:])
    # Two of the four experts that were not chosen.
    counts_E = drawn_NE[:2400].sum(0).float()
    assert not counts_E[:2].any() and (counts_E[2:] - 1200).abs().max() < 5 * 600**0.5
    assert torch.equal(weights_NE[:2400], drawn_NE[:2400] * 0.5)
    assert torch.equal(arbitrary(mark_N, seed=0)(routing)[0], drawn_NE)
    assert not torch.equal(arbitrary(mark_N, seed=1)(routing)[0], drawn_NE)


@pytest.fixture(scope="module")
def model() -> SpectraMoeForCausalLM:
    return model_of("switch").eval()


@torch.no_grad()
def logits_of(model: SpectraMoeForCausalLM, by_layer: dict[int, Intervention]) -> tuple[Tensor, RoutingContext]:
    with intervening(model, by_layer):
        output = model(ids_of())
    return output.logits, output.routing


def test_a_swap_of_the_experts_weights_undoes_a_swap_of_the_tokens(model: SpectraMoeForCausalLM) -> None:
    plain, _ = logits_of(model, {})
    swap = swapped(0, 3)
    moved, _ = logits_of(model, {1: swap})
    twice, _ = logits_of(model, {1: lambda routing: swap(Routing(*swap(routing), *_rest(routing)))})
    assert (moved - plain).abs().max() > 1e-4
    assert torch.equal(twice, plain)
    other = model_of("switch").eval()
    with torch.no_grad():
        for weight in other.routed_layers[1].experts.parameters():
            weight[[0, 3]] = weight[[3, 0]]
    torch.testing.assert_close(logits_of(other, {1: swap})[0], plain)


def _rest(routing: Routing) -> tuple:
    return routing.scores_NE, routing.raw_NE, routing.top_k


def test_the_record_shows_what_was_executed_and_the_block_leaves_nothing(model: SpectraMoeForCausalLM) -> None:
    plain, before = logits_of(model, {})
    assert before.records[0].chosen_NE[:, 2].any()
    off, during = logits_of(model, {0: switched_off(2)})
    assert not during.records[0].chosen_NE[:, 2].any() and during.records[1].chosen_NE.any()
    assert (off - plain).abs().max() > 1e-4
    assert all(layer.intervention is None for layer in model.routed_layers)
    with pytest.raises(RuntimeError, match="fault"), intervening(model, {0: swapped(0, 1)}):
        raise RuntimeError("fault")
    assert torch.equal(logits_of(model, {})[0], plain)


def test_what_cannot_be_done_is_refused(model: SpectraMoeForCausalLM) -> None:
    with pytest.raises(ValueError, match="no routed layer 7; the model has 2"), intervening(model, {7: swapped(0, 1)}):
        pass
    with intervening(model, {0: swapped(0, 1)}):
        with pytest.raises(ValueError, match="another intervention"), intervening(model, {1: swapped(0, 1)}):
            pass
        assert model.routed_layers[0].intervention is not None
    with pytest.raises(ValueError, match="evaluation mode"), intervening(model_of("switch"), {0: swapped(0, 1)}):
        pass
