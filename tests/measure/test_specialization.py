from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from routing_cases import accumulator_of, chosen_of, layer_of, record_of, routings, statistics_of, tokens_of
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.pairwise import cosine_similarity

from spectra_exp.measure import specialization as sp


def test_overlap_by_hand():
    # Expert 0 serves id 0 twice and id 1 once; expert 1 ids 1 and 2 once; expert 2 nothing.
    stats = layer_of([[0], [0], [0, 1], [1]], 3, top_k=1, ids=[0, 0, 1, 2])
    # min: 1/3 at id 1; max: 2/3 + 1/2 + 1/2.
    assert sp.expert_overlap(stats) == pytest.approx((1 / 3) / (2 / 3 + 1 / 2 + 1 / 2))


def test_overlap_limits():
    apart = layer_of([[0], [1]], 2, top_k=1, ids=[0, 1])
    alike = layer_of([[0], [1], [1]], 2, top_k=1, ids=[0, 0, 0])
    assert sp.expert_overlap(apart) == 0.0
    assert sp.expert_overlap(alike) == pytest.approx(1.0)
    assert sp.expert_overlap(layer_of([[0]], 2, top_k=1)) is None


@settings(max_examples=50, deadline=None)
@given(routings())
def test_overlap_equals_its_definition(case):
    records, tokens, top_k = case
    for stats in statistics_of(records, tokens, top_k):
        used = [c / c.sum() for c in stats.counts_EV if c.any()]
        jaccards = [np.minimum(a, b).sum() / np.maximum(a, b).sum() for a, b in combinations(used, 2)]
        if jaccards:
            assert sp.expert_overlap(stats) == pytest.approx(np.mean(jaccards))
        else:
            assert sp.expert_overlap(stats) is None


def test_coactivation_by_hand():
    stats = layer_of([[0, 1], [0, 1], [0, 2], [0]], 4, top_k=2)
    matrix = sp.coactivation_matrix(stats)
    np.testing.assert_allclose(matrix, [[0, 0.5, 0.25, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert sp.coactivation(stats) == pytest.approx((0.5 + 1 + 1) / 3)
    assert sp.coactivation(layer_of([[0], [1]], 2, top_k=1)) is None


@settings(max_examples=50, deadline=None)
@given(routings())
def test_diversity_equals_scikit_learns(case):
    records, tokens, top_k = case
    for record, stats in zip(records, statistics_of(records, tokens, top_k), strict=True):
        columns = record.chosen_NE.T.int().numpy()
        pairs = [p for p in combinations(columns, 2) if any(len(set(c)) > 1 for c in p)]
        if pairs:
            expected = 1 - np.mean([normalized_mutual_info_score(a, b) for a, b in pairs])
            assert sp.expert_diversity(stats) == pytest.approx(expected, abs=1e-9)
        else:
            assert sp.expert_diversity(stats) is None


def _with_vectors(representation, outputs=None):
    stats = layer_of([[0], [1], [2]], 3, top_k=1)
    return replace(stats, representation_ED=representation, output_mean_ED=outputs)


def test_gram_by_hand():
    stats = _with_vectors(np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 1.0]]))
    # Cosines 0, -1/sqrt2, 1/sqrt2.
    assert sp.gram_orthogonality(stats) == pytest.approx(1 - np.sqrt(2) / 3)
    assert sp.gram_rms(stats) == pytest.approx(np.sqrt(1 / 3))
    assert sp.gram_welch_floor(stats) == pytest.approx(np.sqrt(1 / (2 * 2)))


def test_welch_floor_is_reached_by_an_equiangular_frame_and_is_zero_when_there_is_room():
    angles = 2 * np.pi * np.arange(3) / 3
    stats = _with_vectors(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert sp.gram_rms(stats) == pytest.approx(sp.gram_welch_floor(stats))
    assert sp.gram_welch_floor(_with_vectors(np.eye(3))) == 0.0
    assert sp.gram_orthogonality(_with_vectors(np.eye(3))) == 1.0


def test_output_gram_leaves_out_unused_experts():
    outputs = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    stats = _with_vectors(None, outputs)
    assert sp.output_gram_orthogonality(stats) == pytest.approx(1 - np.sqrt(0.5))
    assert sp.gram_orthogonality(stats) is None and sp.gram_rms(stats) is None
    assert sp.gram_welch_floor(stats) is None
    unit = outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-12)
    planted = 1 - np.abs((unit @ unit.T)[~np.eye(3, dtype=bool)]).mean()  # a dead expert would look orthogonal
    assert planted > sp.output_gram_orthogonality(stats) + 0.1


def test_mean_outputs_come_from_sums_over_all_batches():
    # Expert 0: one token of output 1 in the first batch, three of output 3 in the second.
    first = record_of(chosen_of([[0], [1]], 2), output_sum_ED=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    second = record_of(chosen_of([[0], [0], [0]], 2), output_sum_ED=torch.tensor([[0.0, 9.0], [0.0, 0.0]]))
    tokens = tokens_of(2)
    accumulator = accumulator_of([first], tokens_of(3), top_k=1)
    accumulator.update([first], tokens)
    accumulator.update([second], tokens_of(3))
    (stats,) = accumulator.statistics()
    np.testing.assert_allclose(stats.output_mean_ED, [[0.25, 2.25], [0.0, 1.0]])


def test_similarity_equals_scikit_learns():
    vectors = np.random.default_rng(0).normal(size=(5, 7))
    cosines = cosine_similarity(vectors)[~np.eye(5, dtype=bool)]
    expected = {"mean": cosines.mean(), "max": cosines.max(), "std": cosines.std()}
    assert sp.expert_similarity(vectors) == pytest.approx(expected)
    stats = _with_vectors(None, vectors)
    assert sp.expert_similarity_output_mean(stats) == pytest.approx(expected["mean"])
    assert sp.expert_similarity_output_max(stats) == pytest.approx(expected["max"])
    assert sp.expert_similarity_output_std(stats) == pytest.approx(expected["std"])
    assert sp.expert_similarity(vectors[:1]) is None and sp.expert_similarity(None) is None


def test_domains_by_hand():
    # Domain 0: expert 0 six times, expert 1 twice. Domain 1: expert 1 twice.
    sets = [[0]] * 6 + [[1]] * 2 + [[1]] * 2
    stats = layer_of(sets, 3, top_k=1, documents=[0] * 8 + [1] * 2, domains=[0] * 8 + [1] * 2)
    affinity = sp.domain_affinity(stats)
    np.testing.assert_allclose(affinity[:, :2], [[0.75 / 0.6, 0.25 / 0.4], [0, 1 / 0.4]])
    assert np.isnan(affinity[:, 2]).all()
    # P(1|d): 0.25 and 1, so expert 1 is 0.8 domain 1; by raw counts it would be an even 2 : 2.
    assert sp.domain_purity(stats) == pytest.approx((1.0 + 0.8) / 2)
    planted = (1.0 + 0.5) / 2
    assert planted != sp.domain_purity(stats)
    labels = [n >= 8 for n in range(10)]
    assert sp.domain_mutual_information(stats) == pytest.approx(mutual_info_score([s[0] for s in sets], labels))


def test_purity_of_two_orders_is_of_these_two_domains_alone():
    # Expert 0 serves domain 1 alone, expert 1 a half of it and all of domain 2; domain 0 goes to expert 0.
    sets, domains = [[0]] * 6 + [[0], [1]] + [[1]] * 3, [0] * 6 + [1] * 2 + [2] * 3
    stats = layer_of(sets, 3, top_k=1, documents=domains, domains=domains)
    assert sp.order_purity(stats) is None
    # Weighted equally: of expert 1, 1/2 against 1.
    pair = replace(stats, reversed_domains=(1, 2))
    assert sp.order_purity(pair) == pytest.approx((1.0 + 2 / 3) / 2)
    planted = sp.domain_purity(pair)
    assert planted != pytest.approx(sp.order_purity(pair))
    # A domain without tokens has no share.
    assert sp.order_purity(replace(pair, counts_GE=pair.counts_GE * np.array([[1], [1], [0]]))) is None


def test_domain_limits():
    split = dict(documents=[0, 0, 1, 1], domains=[0, 0, 1, 1])
    apart, alike = layer_of([[0], [0], [1], [1]], 2, 1, **split), layer_of([[0], [1], [0], [1]], 2, 1, **split)
    assert sp.domain_purity(apart) == 1.0 and sp.domain_purity(alike) == 0.5
    assert sp.domain_mutual_information(apart) == pytest.approx(np.log(2))
    assert sp.domain_mutual_information(alike) == pytest.approx(0.0, abs=1e-12)
    single = layer_of([[0], [1]], 2, 1)
    assert sp.domain_purity(single) is None and sp.domain_mutual_information(single) is None


@settings(max_examples=40, deadline=None)
@given(routings(ragged=False))
def test_domain_information_equals_scikit_learns_over_assignments(case):
    records, tokens, top_k = case
    for record, stats in zip(records, statistics_of(records, tokens, top_k), strict=True):
        token, expert = record.chosen_NE.nonzero(as_tuple=True)
        domains = tokens.domain_ids_N[token].tolist()
        if len(set(domains)) > 1:
            expected = mutual_info_score(expert.tolist(), domains)
            assert sp.domain_mutual_information(stats) == pytest.approx(expected, abs=1e-9)
        else:
            assert sp.domain_mutual_information(stats) is None
