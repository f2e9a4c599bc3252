from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_cases import accumulator_of, chosen_of, record_of, tokens_of
from sklearn.metrics import silhouette_score

from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.separation import LEAST_TOKENS, cosine_silhouette, silhouette
from spectra_exp.measure.specialization import (
    expert_similarity_weight_max,
    expert_similarity_weight_mean,
    expert_similarity_weight_std,
)
from spectra_exp.moe.experts import Experts
from spectra_exp.training.evaluation import weight_cosines


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(8, 60), st.floats(0, 3))
def test_equals_scikit_learns(seed: int, clusters: int, tokens: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    label = np.r_[np.arange(clusters), rng.integers(0, clusters, tokens - clusters)]
    hidden = rng.normal(size=(tokens, 5)) + apart * rng.normal(size=(clusters, 5))[label]
    found = cosine_silhouette(hidden, label)
    assert found == pytest.approx(silhouette_score(hidden, label, metric="cosine"), abs=1e-9)


def test_by_hand() -> None:
    # Two tokens along x, one along y: the pair is at distance 0 from itself and 1 from the other, which is alone.
    hidden = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    assert cosine_silhouette(hidden, np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert cosine_silhouette(hidden, np.array([0, 0, 0])) is None


def test_planted_fault_a_euclidean_silhouette_is_another_figure() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(50, 4)) * rng.uniform(0.1, 10, size=(50, 1))
    label = rng.integers(0, 3, 50)
    assert abs(cosine_silhouette(hidden, label) - silhouette_score(hidden, label)) > 0.01


def statistics_of(tokens: int, hidden: torch.Tensor | None) -> LayerStatistics:
    """Tokens that go to experts 0 and 1 in turn."""
    record = record_of(chosen_of([[n % 2] for n in range(tokens)], 2), hidden_Nd=hidden)
    ids = tokens_of(tokens, ids=[0] * tokens)
    accumulator = accumulator_of([record], ids, top_k=1, probes=tokens)
    accumulator.update([record], ids)
    return accumulator.statistics()[0]


def test_states_that_follow_the_expert_are_apart_and_too_few_tokens_say_nothing() -> None:
    ways = torch.eye(2)[torch.arange(LEAST_TOKENS) % 2]
    assert silhouette(statistics_of(LEAST_TOKENS, ways)) == pytest.approx(1.0)
    shuffled = ways[torch.randperm(LEAST_TOKENS, generator=torch.Generator().manual_seed(0))]
    assert abs(silhouette(statistics_of(LEAST_TOKENS, shuffled))) < 0.05
    assert silhouette(statistics_of(LEAST_TOKENS - 1, ways[1:])) is None
    assert silhouette(statistics_of(LEAST_TOKENS, None)) is None


def test_weight_similarity_is_of_flattened_down_projections() -> None:
    experts = Experts(3, 4, 5, gated=True, activation="silu", std=0.02)
    experts.reset_parameters()
    with torch.no_grad():
        experts.down[1] = 2 * experts.down[0]
    flat = experts.down.detach().double().flatten(1).numpy()
    pairs = [(0, 1), (0, 2), (1, 2)]
    cosines = [flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j]) for i, j in pairs]
    stats = replace(statistics_of(4, None), weight_cosines_EE=weight_cosines(experts))
    assert cosines[0] == pytest.approx(1.0)
    assert expert_similarity_weight_mean(stats) == pytest.approx(np.mean(cosines), abs=1e-6)
    assert expert_similarity_weight_max(stats) == pytest.approx(1.0, abs=1e-6)
    assert expert_similarity_weight_std(stats) == pytest.approx(np.std(cosines), abs=1e-6)
