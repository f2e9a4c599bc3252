from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from routing_cases import chosen_of, layer_of, record_of, routings, statistics_of, tokens_of
from sklearn.metrics import normalized_mutual_info_score

from spectra_exp.measure import decision


def test_the_distribution_by_hand():
    probs_NE = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    (stats,) = statistics_of([record_of(chosen_of([[0], [0]], 4), probs_NE=probs_NE)], tokens_of(2), top_k=1)
    assert decision.routing_entropy(stats) == pytest.approx(np.log(2) / 2)
    assert decision.routing_entropy_norm(stats) == pytest.approx(0.25)
    assert decision.score_gap(stats) == pytest.approx(0.5)


def test_a_router_without_distribution_has_no_entropy_and_no_gap():
    stats = layer_of([[0], [1]], 2, top_k=1)
    assert decision.routing_entropy(stats) is None and decision.routing_entropy_norm(stats) is None
    assert decision.score_gap(stats) is None


def test_confidence_renormalises_and_leaves_out_tokens_without_an_expert():
    weights_NE = torch.tensor([[0.3, 0.1, 0.0], [0.0, 0.0, 0.2], [0.0, 0.0, 0.0]])
    (stats,) = statistics_of([record_of(weights_NE > 0, weights_NE=weights_NE)], tokens_of(3), top_k=2)
    assert decision.routing_confidence(stats) == pytest.approx((0.75 + 1.0) / 2)
    assert decision.routing_confidence(layer_of([[]], 2, top_k=1)) is None


def test_overlap_of_neighbours_stays_inside_documents_and_sequences():
    sets = [[0, 1], [1, 2], [1, 2], [1, 2], [1, 2]]
    # Pairs: one expert of two in common; then a new document, a new sequence; then both in common.
    stats = layer_of(sets, 3, top_k=2, documents=[0, 0, 1, 1, 1], sequences=[0, 0, 0, 1, 1])
    assert decision.sequential_overlap(stats) == pytest.approx((0.5 + 1.0) / 2)
    planted = np.mean([0.5, 1.0, 1.0, 1.0])  # all neighbours, whatever lies between them
    assert planted != decision.sequential_overlap(stats)
    assert decision.sequential_overlap(layer_of([[0], [0]], 2, top_k=1, documents=[0, 1])) is None


def test_overlap_counts_short_tokens_over_k():
    assert decision.sequential_overlap(layer_of([[0, 1], [0], []], 3, top_k=2)) == pytest.approx((0.5 + 0) / 2)


@settings(max_examples=60, deadline=None)
@given(routings(min_layers=2, ragged=False))
def test_layer_information_equals_scikit_learns_on_first_experts(case):
    records, tokens, top_k = case
    stats = statistics_of(records, tokens, top_k)
    assert decision.layer_mutual_information(stats[0]) is None
    for below, above, layer in zip(records, records[1:], stats[1:], strict=False):
        a, b = (r.weights_NE.argmax(1).tolist() for r in (below, above))
        ours = decision.layer_mutual_information(layer)
        if ours is None:
            assert len(set(a)) == len(set(b)) == 1
        else:
            assert ours == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)


def test_renamed_experts_share_all_information_though_their_indices_never_agree():
    weights_NE = torch.eye(3)[[0, 1, 2, 0]]
    renamed_NE = weights_NE[:, [1, 2, 0]]
    records = [record_of(w > 0, i, weights_NE=w) for i, w in enumerate([weights_NE, renamed_NE])]
    _, above = statistics_of(records, tokens_of(4), top_k=1)
    assert decision.layer_mutual_information(above) == pytest.approx(1.0)
    planted = (weights_NE.bool() & renamed_NE.bool()).sum()
    assert planted == 0
