"""Letters: N tokens, E experts, K experts per token, C capacity of an expert."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from router_cases import normal
from torch import Tensor

from spectra_exp.routing.selection import (
    assignment_weights,
    capacity,
    position_hash,
    select_expert_choice,
    select_quota,
    select_topk,
    strict_ranks,
)


def _deferred_acceptance(scores: list[list[float]], k: int, limit: int) -> set[tuple[int, int]]:
    """One proposal at a time, in plain Python (scores must be distinct)."""
    n, e = len(scores), len(scores[0])
    wishes = [sorted(range(e), key=lambda i: -scores[t][i]) for t in range(n)]
    asked, held = [0] * n, [[] for _ in range(e)]
    while True:
        hungry = [t for t in range(n) if sum(t in h for h in held) < k and asked[t] < e]
        if not hungry:
            return {(t, i) for i in range(e) for t in held[i]}
        token = hungry[0]
        expert = wishes[token][asked[token]]
        asked[token] += 1
        held[expert].append(token)
        if len(held[expert]) > limit:
            held[expert].remove(min(held[expert], key=lambda t: scores[t][expert]))


def _greedy(scores: list[list[float]], k: int, limit: int) -> set[tuple[int, int]]:
    pairs = sorted(((s, t, i) for t, row in enumerate(scores) for i, s in enumerate(row)), reverse=True)
    chosen: set[tuple[int, int]] = set()
    tokens, experts = [0] * len(scores), [0] * len(scores[0])
    for _, t, i in pairs:
        if tokens[t] < k and experts[i] < limit:
            chosen.add((t, i))
            tokens[t] += 1
            experts[i] += 1
    return chosen


def _drop_over_capacity(scores: Tensor, k: int, limit: int) -> Tensor:
    """Wrong version: what many implementations do: top-k, then drop what is over capacity."""
    chosen = select_topk(scores, k)
    for expert in range(scores.shape[1]):
        taken = chosen[:, expert].nonzero().flatten()
        best = taken[scores[taken, expert].argsort(descending=True)][:limit]
        chosen[:, expert] = False
        chosen[best, expert] = True
    return chosen


instances = dict(
    n=st.integers(1, 14),
    e=st.integers(1, 6),
    k=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    alpha=st.sampled_from([1.0, 1.1, 1.25, 1.5, 2.0]),
    skew=st.sampled_from([0.0, 3.0]),
)


def _scores(n: int, e: int, seed: int, skew: float) -> Tensor:
    return normal(n, e, seed=seed) - skew * torch.arange(e)


@settings(deadline=None, max_examples=150)
@given(**instances)
def test_quota_is_deferred_acceptance_and_global_greedy(n, e, k, seed, alpha, skew):
    k = min(k, e)
    scores_NE = _scores(n, e, seed, skew)
    limit = capacity(n, e, k, alpha)
    chosen_NE = select_quota(scores_NE, k, alpha)
    pairs = {tuple(pair) for pair in chosen_NE.nonzero().tolist()}
    assert pairs == _deferred_acceptance(scores_NE.tolist(), k, limit)
    assert pairs == _greedy(scores_NE.tolist(), k, limit)


@settings(deadline=None, max_examples=100)
@given(equal=st.booleans(), **instances)
def test_quota_keeps_its_promises(n, e, k, seed, alpha, skew, equal):
    k = min(k, e)
    scores_NE = torch.zeros(n, e) if equal else _scores(n, e, seed, skew).round()  # many ties
    limit = capacity(n, e, k, alpha)
    chosen_NE = select_quota(scores_NE, k, alpha)
    assert chosen_NE.sum(0).max() <= limit
    assert chosen_NE.sum(1).min() >= 1 and chosen_NE.sum(1).max() <= k
    assert torch.equal(chosen_NE, select_quota(scores_NE.clone(), k, alpha))
    # No blocking pair: a token and an expert, apart, that would both rather have each other.
    ranks = strict_ranks(scores_NE)
    for t, i in (~chosen_NE).nonzero().tolist():
        token_wants = chosen_NE[t].sum() < k or ranks[t, i] > ranks[t][chosen_NE[t]].min()
        expert_wants = chosen_NE[:, i].sum() < limit or ranks[t, i] > ranks[:, i][chosen_NE[:, i]].min()
        assert not (token_wants and expert_wants)


def test_dropping_over_capacity_breaks_those_promises():
    """The wrong version leaves tokens with no expert; the checks above would see it."""
    scores_NE = _scores(12, 4, 0, 3.0)
    wrong = _drop_over_capacity(scores_NE, 2, capacity(12, 4, 2, 1.0))
    assert wrong.sum(1).min() == 0
    assert not torch.equal(wrong, select_quota(scores_NE, 2, 1.0))


def test_capacity_is_the_exact_ceiling():
    assert capacity(8, 4, 2, 1.25) == 5
    assert capacity(3, 4, 1, 1.0) == 1
    assert capacity(4, 2, 2, 2.0) == 4  # never more than all tokens
    for tenths in range(10, 31):
        for n in range(1, 60):
            exact = math.ceil(Fraction(tenths, 10) * n * 2 / 5)
            assert capacity(n, 5, 2, tenths / 10) == min(n, exact)
    # Planted fault: in binary floating point 1.1 * 10 is more than 11.
    assert math.ceil(1.1 * 100 * 1 / 10) == 12 and capacity(100, 10, 1, 1.1) == 11


def test_ties_follow_the_fixed_hash():
    """Equal scores: the order is that of the hash of position and expert, not of the index."""
    scores_NE = torch.zeros(6, 3)
    hashes = position_hash(torch.arange(6), 3)
    assert torch.equal(strict_ranks(scores_NE).flatten().argsort(), hashes.flatten().argsort())
    expected = _greedy(hashes.tolist(), 1, 2)
    assert {tuple(p) for p in select_quota(scores_NE, 1, 1.0).nonzero().tolist()} == expected
    by_index = {(t, t // 2) for t in range(6)}
    assert expected != by_index
    # The score comes first, whatever the hash says.
    scores_NE[0, 1] = 1.0
    assert strict_ranks(scores_NE)[0, 1] == 17


def test_position_hash_is_fixed_and_spread():
    """Figures from a splitmix64 of Python integers, so a change of platform or code shows."""

    def mixed(value: int, expert: int) -> int:
        wrap = (1 << 64) - 1
        z = (value * -7046029254386353131 + (expert + 1) * -4658895280553007687) & wrap
        z = ((z ^ (z >> 30) & 0x3FFFFFFFF) * -4658895280553007687) & wrap
        z = ((z ^ (z >> 27) & 0x1FFFFFFFFF) * -7723592293110705685) & wrap
        return ((z ^ (z >> 31)) >> 11) & ((1 << 53) - 1)

    values = [0, 1, 2, 49_151, -1, 10**12]
    table = position_hash(torch.tensor(values), 5)
    assert table.tolist() == [[mixed(v, i) for i in range(5)] for v in values]
    best = position_hash(torch.arange(8000), 4).argmax(1).bincount(minlength=4)
    assert (best - 2000).abs().max() < 150


def test_top_k_by_hand():
    scores_NE = torch.tensor([[0.1, 0.7, 0.2], [3.0, 1.0, 2.0]])
    assert select_topk(scores_NE, 1).tolist() == [[False, True, False], [True, False, False]]
    assert select_topk(scores_NE, 2).tolist() == [[False, True, True], [True, False, True]]


def test_expert_choice_by_hand():
    """4 tokens, 2 experts, k 1: each expert takes 2; token 0 gets both, token 3 none."""
    scores_NE = torch.tensor([[0.9, 0.8], [0.7, 0.1], [0.2, 0.6], [0.1, 0.2]])
    expected = [[True, True], [True, False], [False, True], [False, False]]
    assert select_expert_choice(scores_NE, 1, 1.0).tolist() == expected
    assert select_expert_choice(scores_NE, 1, 1.5).sum(0).tolist() == [3, 3]
    assert select_expert_choice(torch.zeros(8, 4), 2, 1.25).sum(0).tolist() == [5] * 4


@pytest.mark.parametrize("rule", [select_topk, select_quota, select_expert_choice])
def test_no_tokens(rule):
    assert rule(torch.zeros(0, 4), 2, 1.25).shape == (0, 4)


def test_weights_of_two_experts_sum_to_one():
    weights_NE = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]])
    chosen_NE = torch.tensor([[True, True, False], [False, True, True]])
    torch.testing.assert_close(
        assignment_weights(weights_NE, chosen_NE, True), torch.tensor([[0.625, 0.375, 0.0], [0.0, 1.0, 0.0]])
    )


def test_one_expert_keeps_its_probability_and_its_gradient():
    weights_NE = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    chosen_NE = torch.tensor([[True, False, False]])
    result = assignment_weights(weights_NE, chosen_NE, False)
    assert result.tolist() == [[0.5, 0.0, 0.0]]
    result.sum().backward()
    assert weights_NE.grad.tolist() == [[1.0, 0.0, 0.0]]
    # Planted fault: normalised to 1 there would be none.
    fault = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    assignment_weights(fault, chosen_NE, True).sum().backward()
    assert float(fault.grad.abs().max()) < 1e-6


def test_underflowed_weights_are_shared_and_a_token_without_expert_gets_none():
    weights_NE = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], requires_grad=True)
    chosen_NE = torch.tensor([[True, True, False], [False, False, False]])
    result = assignment_weights(weights_NE, chosen_NE, True)
    assert result.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    result.sum().backward()
    assert weights_NE.grad.isfinite().all()
