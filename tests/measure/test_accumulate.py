from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from routing_cases import accumulator_of, chosen_of, cut, record_of, routings, statistics_of, tokens_of

from spectra_exp.measure.tokens import TokenBatch

EXACT = (
    "counts_E",
    "counts_GE",
    "domains_G",
    "counts_EV",
    "tokens_V",
    "pairs_EE",
    "sizes",
    "overlap_sum",
    "num_adjacent",
    "num_tokens",
    "probe_experts_PK",
    "probe_weights_PK",
    "counts_ME",
    "first_EE",
)
SUMS = ("entropy_sum", "gap_sum", "confidence_sum")


def test_two_layers_of_four_tokens_by_hand():
    first = record_of(chosen_of([[0, 1], [1], [], [0, 1, 2]], 3), 0)
    weights_NE = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.3, 0.1], [0.5, 0.5, 0.0], [0.0, 0.9, 0.0]])
    second = record_of(weights_NE > 0, 1, weights_NE=weights_NE)
    tokens = tokens_of(4, ids=[2, 0, 2, 1], documents=[1, 1, 1, 0], domains=[0, 0, 0, 1])
    below, above = statistics_of([second, first], tokens, top_k=2, probes=2)

    assert below.counts_E.tolist() == [2, 3, 1]
    assert below.sizes.tolist() == [1, 1, 1, 1]
    assert below.pairs_EE.tolist() == [[2, 2, 1], [2, 3, 1], [1, 1, 1]]
    assert below.counts_GE.tolist() == [[1, 1, 1], [1, 2, 0]]
    assert below.counts_ME.tolist() == [[1, 2, 0], [1, 1, 1]]
    assert below.counts_EV.tolist() == [[0, 1, 1], [1, 1, 1], [0, 1, 0]]
    assert below.tokens_V.tolist() == [1, 1, 2]
    # Adjacent pairs of document 1: {0,1}&{1} = 1, {1}&{} = 0; the third pair crosses documents.
    assert (below.overlap_sum, below.num_adjacent) == (1, 2)
    assert below.confidence_sum == pytest.approx(1 / 2 + 1 + 1 / 3)
    assert below.entropy_sum is None and below.gap_sum is None and below.first_EE is None
    assert below.probe_experts_PK.tolist() == [[0, 1], [1, -1]]
    assert below.probe_experts_PK.dtype == np.int16 and below.probe_weights_PK.dtype == np.float32

    assert above.confidence_sum == pytest.approx(1 + 0.3 / 0.4 + 0.5 + 1)
    # First experts 0,1,-,0 below and 2,1,0,1 above.
    assert above.first_EE.tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert above.probe_experts_PK.tolist() == [[2, -1], [1, 2]]
    np.testing.assert_allclose(above.probe_weights_PK, [[1.0, 0.0], [0.3, 0.1]], rtol=1e-6)


def test_a_probe_token_with_more_than_k_experts_keeps_them_all():
    record = record_of(chosen_of([[0, 1], [0, 1, 2]], 4))
    (stats,) = statistics_of([record], tokens_of(2), top_k=1, probes=2)
    assert stats.probe_experts_PK.tolist() == [[0, 1, -1], [0, 1, 2]]


def test_probabilities_representations_and_outputs_by_hand():
    probs_NE = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    record = record_of(
        chosen_of([[0], [0]], 3),
        probs_NE=probs_NE,
        representation_ED=torch.eye(3, requires_grad=True),
        output_sum_ED=torch.tensor([[4.0, 2.0], [0.0, 0.0], [0.0, 0.0]]),
    )
    (stats,) = statistics_of([record], tokens_of(2), top_k=1)
    assert stats.entropy_sum == pytest.approx(1.5 * np.log(2))
    assert stats.gap_sum == pytest.approx(1.25)
    assert stats.output_mean_ED.tolist() == [[2.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_array_equal(stats.representation_ED, np.eye(3))


@settings(max_examples=60, deadline=None)
@given(routings())
def test_counts_equal_a_loop_over_tokens(case):
    records, tokens, top_k = case
    for layer, stats in enumerate(statistics_of(records, tokens, top_k)):
        sets = [set(np.flatnonzero(row)) for row in records[layer].chosen_NE.numpy()]
        counts_EV, counts_GE = np.zeros_like(stats.counts_EV), np.zeros_like(stats.counts_GE)
        pairs_EE, sizes = np.zeros_like(stats.pairs_EE), np.zeros_like(stats.sizes)
        overlap = adjacent = 0
        for n, experts in enumerate(sets):
            sizes[len(experts)] += 1
            for i in experts:
                counts_EV[i, tokens.token_ids_N[n]] += 1
                counts_GE[tokens.document_ids_N[n], i] += 1
                for j in experts:
                    pairs_EE[i, j] += 1
        for n, (here, following) in enumerate(pairwise(sets)):
            same = [ids[n] == ids[n + 1] for ids in (tokens.document_ids_N, tokens.sequence_ids_N)]
            adjacent += all(same)
            overlap += len(here & following) * all(same)
        np.testing.assert_array_equal(stats.counts_EV, counts_EV)
        np.testing.assert_array_equal(stats.counts_GE, counts_GE)
        np.testing.assert_array_equal(stats.pairs_EE, pairs_EE)
        np.testing.assert_array_equal(stats.sizes, sizes)
        np.testing.assert_array_equal(stats.counts_E, pairs_EE.diagonal())
        assert (stats.overlap_sum, stats.num_adjacent) == (overlap, adjacent)
        if layer:
            firsts = [_first_experts(records[i]) for i in (layer - 1, layer)]
            joint = np.zeros_like(stats.first_EE)
            for a, b in zip(*firsts, strict=True):
                if a is not None and b is not None:
                    joint[a, b] += 1
            np.testing.assert_array_equal(stats.first_EE, joint)


def _first_experts(record):
    return [int(w.argmax()) if c.any() else None for w, c in zip(record.weights_NE, record.chosen_NE, strict=True)]


@settings(max_examples=60, deadline=None)
@given(routings())
def test_the_batch_size_changes_nothing_but_the_counts_by_batch(case):
    records, tokens, top_k = case
    num_tokens = len(tokens.token_ids_N)
    probes = num_tokens // 2
    starts = [0, *(np.flatnonzero(np.diff(tokens.sequence_ids_N)) + 1), num_tokens]
    by_sequence = [slice(a, b) for a, b in pairwise(starts)]
    whole = statistics_of(records, tokens, top_k, probes)
    parts = statistics_of(records, tokens, top_k, probes, by_sequence)
    for one, many in zip(whole, parts, strict=True):
        for name in EXACT:
            np.testing.assert_array_equal(getattr(one, name), getattr(many, name), err_msg=name)
        for name in SUMS:
            assert getattr(one, name) == pytest.approx(getattr(many, name), rel=1e-12)
        assert many.tokens_T.tolist() == [s.stop - s.start for s in by_sequence]
        np.testing.assert_array_equal(many.counts_TE.sum(0), one.counts_E)


def test_executed_assignments_are_counted_not_the_routers_first_choice():
    # A quota turned three of four tokens away from expert 0, which the router likes best for all of them.
    probs_NE = torch.tensor([[0.6, 0.3, 0.1]] * 4)
    record = record_of(chosen_of([[0], [1], [1], [2]], 3), probs_NE=probs_NE)
    (stats,) = statistics_of([record], tokens_of(4), top_k=1)
    assert stats.counts_E.tolist() == [1, 2, 1]
    planted = np.bincount(probs_NE.argmax(1), minlength=3)
    assert planted.tolist() == [4, 0, 0]


def test_the_first_expert_is_the_heaviest_chosen_one_not_the_likeliest():
    probs_NE = torch.tensor([[0.7, 0.2, 0.1]])
    weights_NE = torch.tensor([[0.0, 0.6, 0.4]])
    records = [record_of(weights_NE > 0, i, weights_NE=weights_NE, probs_NE=probs_NE) for i in range(2)]
    _, above = statistics_of(records, tokens_of(1), top_k=2, probes=1)
    assert above.first_EE[1, 1] == 1
    assert above.probe_experts_PK.tolist() == [[1, 2]]


def test_tokens_of_no_known_domain_count_in_none():
    record = record_of(chosen_of([[0], [1]], 2))
    tokens = tokens_of(2, documents=[0, 1], domains=[0, -1])
    (stats,) = statistics_of([record], tokens, top_k=1)
    assert stats.counts_E.tolist() == [1, 1] and stats.counts_ME.tolist() == [[1, 0]]


def test_a_chosen_expert_with_zero_weight_still_counts():
    record = record_of(chosen_of([[1, 2]], 3), weights_NE=torch.zeros(1, 3))
    (stats,) = statistics_of([record], tokens_of(1), top_k=2, probes=1)
    assert stats.probe_experts_PK.tolist() == [[1, 2]]
    assert stats.confidence_sum == pytest.approx(0.5)


def test_pair_counts_stay_exact_under_autocast():
    num_tokens = 1001
    record = record_of(torch.ones(num_tokens, 2, dtype=torch.bool))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (stats,) = statistics_of([record], tokens_of(num_tokens, ids=[0] * num_tokens), top_k=2)
        used_NE = record.chosen_NE.float()
        planted = (used_NE.T @ used_NE).long()
    assert (stats.pairs_EE == num_tokens).all()
    assert not (planted == num_tokens).all()


def test_totals_taken_halfway_do_not_move():
    record, tokens = record_of(chosen_of([[0], [1]], 2)), tokens_of(2)
    accumulator = accumulator_of([record], tokens, top_k=1)
    accumulator.update([record], tokens)
    halfway = accumulator.statistics()[0]
    accumulator.update([record], tokens)
    assert halfway.counts_EV.sum() == 2 and halfway.tokens_V.sum() == 2 and halfway.pairs_EE.sum() == 2
    assert accumulator.statistics()[0].counts_E.tolist() == [2, 2]


def test_a_batch_of_padding_alone_adds_nothing():
    record, tokens = record_of(chosen_of([[0], [1]], 2)), tokens_of(2)
    accumulator = accumulator_of([record], tokens, top_k=1)
    accumulator.update([cut(record, slice(0, 0))], TokenBatch(*(c[:0] for c in vars(tokens).values())))
    accumulator.update([record], tokens)
    assert accumulator.statistics()[0].tokens_T.tolist() == [2]


def test_mistakes_are_refused():
    record, tokens = record_of(chosen_of([[0], [1]], 2)), tokens_of(2)
    accumulator = accumulator_of([record], tokens, top_k=1, probes=5)
    with pytest.raises(ValueError, match="no batch"):
        accumulator.statistics()
    with pytest.raises(ValueError, match="expected 0..0"):
        accumulator.update([record, record_of(record.chosen_NE, 1)], tokens)
    with pytest.raises(ValueError, match=r"expected \(1, 2\)"):
        accumulator.update([record], tokens_of(1))
    with pytest.raises(ValueError, match="two domains"):
        accumulator.update([record], tokens_of(2, domains=[0, 1]))
    accumulator = accumulator_of([record], tokens, top_k=1, probes=5)
    accumulator.update([record], tokens)
    with pytest.raises(ValueError, match="5 probe tokens, but only 2"):
        accumulator.statistics()
    with pytest.raises(ValueError, match="some batches"):
        accumulator.update([record_of(record.chosen_NE, probs_NE=torch.full((2, 2), 0.5))], tokens)
    # A document may not change its domain in a later batch either.
    two = accumulator_of([record], tokens_of(2, documents=[0, 1], domains=[0, 1]), top_k=1)
    two.update([record], tokens_of(2))
    with pytest.raises(ValueError, match="two domains"):
        two.update([record], tokens_of(2, domains=[1, 1]))


def test_padding_takes_no_part():
    real_BS = torch.tensor([[0, 1, 1], [1, 1, 0]])
    ids_BS = torch.tensor([[9, 5, 6], [7, 8, 9]])
    documents_BS = torch.tensor([[0, 0, 0], [1, 1, 1]])
    tokens = TokenBatch.from_padded(ids_BS, real_BS, documents_BS, documents_BS)
    assert tokens.token_ids_N.tolist() == [5, 6, 7, 8]
    assert tokens.sequence_ids_N.tolist() == [0, 0, 1, 1]
    assert tokens.document_ids_N.tolist() == tokens.domain_ids_N.tolist() == [0, 0, 1, 1]
