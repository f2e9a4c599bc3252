from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_exp.measure.nulls import MarginalRouting, random_joint, served_vocabulary, uniform_counts


def _random_sets(rng, num_tokens, num_experts, sizes_N, scale):
    """[N, E] bool: the `sizes_N[n]` largest of skewed noisy scores."""
    scores = scale * rng.normal(size=num_experts) + rng.gumbel(size=(num_tokens, num_experts))
    rank = np.argsort(np.argsort(-scores, axis=1), axis=1)
    return rank < sizes_N[:, None]


def test_uniform_counts_are_those_of_tokens_drawn_one_by_one():
    num_tokens, num_experts, top_k = 60, 6, 2
    fast = uniform_counts(num_experts, [0] * top_k + [num_tokens], draws=4000, seed=0)
    assert (fast.sum(axis=1) == num_tokens * top_k).all() and fast.max() <= num_tokens
    rng = np.random.default_rng(1)
    rank = rng.random((4000, num_tokens, num_experts)).argsort(-1)
    slow = (rank < top_k).sum(axis=1)
    np.testing.assert_allclose(fast.mean(axis=0), np.full(6, 20), rtol=0.02)
    np.testing.assert_allclose(np.cov(fast.T), np.cov(slow.T), atol=0.9)
    assert np.sort(fast, 1).mean(0) == pytest.approx(np.sort(slow, 1).mean(0), rel=0.02)


def test_uniform_counts_when_every_expert_is_taken():
    assert (uniform_counts(3, [0, 0, 0, 7], draws=2, seed=0) == 7).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0, 4), st.booleans())
def test_marginal_routing_is_fitted_to_any_loads(seed, num_experts, scale, ragged):
    rng = np.random.default_rng(seed)
    top_k = int(rng.integers(1, num_experts + 1))
    sizes_N = rng.integers(0, num_experts + 1, 300) if ragged else np.full(300, top_k)
    used_NE = _random_sets(rng, 300, num_experts, sizes_N, scale)
    sizes = np.bincount(sizes_N, minlength=num_experts + 1)
    routing = MarginalRouting(used_NE.mean(axis=0), sizes / 300)
    np.testing.assert_allclose(routing.inclusion(), used_NE.mean(axis=0), atol=1e-3)
    sample_NE = routing.sample(sizes_N, rng)
    np.testing.assert_array_equal(sample_NE.sum(axis=1), sizes_N)


def test_samples_have_the_loads_asked_for():
    rng = np.random.default_rng(0)
    sizes_N = np.full(20_000, 2)
    inclusion_E = np.array([0.9, 0.6, 0.3, 0.15, 0.05, 0.0])
    routing = MarginalRouting(inclusion_E, np.array([0, 0, 1.0, 0, 0, 0, 0]))
    sample_NE = routing.sample(sizes_N, rng)
    np.testing.assert_allclose(sample_NE.mean(axis=0), inclusion_E, atol=0.012)
    # Chances equal to the loads, without the fit, would miss them: sets of fixed size repel each other.
    planted = MarginalRouting(inclusion_E, np.array([0, 0, 1.0, 0, 0, 0, 0]))
    planted.chance_E = inclusion_E
    assert np.abs(planted.sample(sizes_N, rng).mean(axis=0) - inclusion_E).max() > 0.03


def test_two_uniform_experts_meet_as_often_as_distinct_draws_do():
    routing = MarginalRouting(np.full(4, 0.5), np.array([0, 0, 1.0, 0, 0]))
    sample_NE = routing.sample(np.full(30_000, 2), np.random.default_rng(0))
    # (k-1)/(E-1) of expert 0's tokens, not k/E.
    assert (sample_NE[:, 0] & sample_NE[:, 1]).sum() / sample_NE[:, 0].sum() == pytest.approx(1 / 3, abs=0.02)


def test_a_collapsed_router_has_only_itself_as_null():
    routing = MarginalRouting(np.array([1.0, 1.0, 0.0]), np.array([0, 0, 1.0, 0]))
    assert (routing.sample(np.full(5, 2), np.random.default_rng(0)) == [True, True, False]).all()


def test_vocabulary_of_given_sets():
    used_NE = np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)
    counts_EV = served_vocabulary(used_NE, np.array([0, 2, 0, 1]))
    assert counts_EV.tolist() == [[0, 2, 0, 0], [0, 1, 0, 1]]


def test_random_joint_keeps_both_margins():
    table = np.array([[5, 0, 2], [1, 3, 9]])
    drawn = random_joint(table, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.sum(0), table.sum(0))
    np.testing.assert_array_equal(drawn.sum(1), table.sum(1))
