from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from routing_cases import chosen_of, layer_of, record_of, statistics_of, tokens_of
from scipy.stats import entropy as scipy_entropy
from scipy.stats import variation

from spectra_exp.measure import balance as b
from spectra_exp.measure import compute_floors, compute_metrics
from spectra_exp.measure.floors import uniform_balance
from spectra_exp.measure.merge import merged

COUNTS = arrays(np.int64, st.integers(2, 9), elements=st.integers(0, 1000)).filter(lambda c: c.any())


def _layer(counts):
    return layer_of([[i] for i, count in enumerate(counts) for _ in range(count)], len(counts), top_k=1)


def test_four_experts_by_hand():
    stats = _layer([6, 2, 0, 0])
    assert b.load_cv(stats) == pytest.approx(np.sqrt((16 + 0 + 4 + 4) / 4) / 2)
    assert b.max_vio(stats) == pytest.approx(2.0)
    # Pairs: 4+6+6+2+2+0 = 20 one way round; mean absolute difference 40/16, over twice the mean.
    assert b.load_gini(stats) == pytest.approx(40 / 16 / 4)
    assert b.expert_entropy(stats) == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    assert b.expert_entropy_norm(stats) == pytest.approx(b.expert_entropy(stats) / np.log(4))
    assert b.unused_rate(stats) == 0.5
    assert b.collapse_rate(stats) == 0.5


def test_limits():
    even, collapsed = _layer([5, 5, 5, 5]), _layer([20, 0, 0, 0])
    for name in ("load_cv", "max_vio", "load_gini", "unused_rate", "collapse_rate"):
        assert getattr(b, name)(even) == pytest.approx(0.0, abs=1e-12)
    assert b.expert_entropy_norm(even) == pytest.approx(1.0)
    assert b.max_vio(collapsed) == 3.0
    assert b.load_gini(collapsed) == pytest.approx(1 - 1 / 4)
    assert b.expert_entropy(collapsed) == pytest.approx(0.0)
    assert b.unused_rate(collapsed) == b.collapse_rate(collapsed) == 0.75


def test_an_expert_at_exactly_a_tenth_of_its_share_has_not_collapsed():
    # f = 0.1/E with E = 3 and 300 assignments is 10; one less has collapsed.
    assert b.collapsed_share(np.array([10, 145, 145])) == 0.0
    assert b.collapsed_share(np.array([9, 145, 146])) == pytest.approx(1 / 3)


@given(COUNTS)
def test_measures_equal_their_definitions_and_scipys(counts):
    assert b.coefficient_of_variation(counts) == pytest.approx(variation(counts))
    assert b.load_entropy(counts) == pytest.approx(scipy_entropy(counts), abs=1e-12)
    pairwise = np.abs(counts[:, None] - counts[None]).sum() / (2 * len(counts) ** 2 * counts.mean())
    assert b.gini(counts) == pytest.approx(pairwise, abs=1e-12)


@given(COUNTS, st.randoms())
def test_the_order_of_experts_does_not_matter(counts, random):
    shuffled = counts.copy()
    random.shuffle(shuffled)
    for measure in b.MEASURES.values():
        assert measure(shuffled) == pytest.approx(float(measure(counts)), abs=1e-12)


def test_batch_metrics_average_the_batches_ratios_and_the_others_do_not():
    # Two batches, each on one expert: balanced over the evaluation, collapsed within each batch.
    record = record_of(chosen_of([[0], [0], [1], [1]], 2))
    (stats,) = statistics_of([record], tokens_of(4), 1, batches=[slice(0, 2), slice(2, 4)])
    assert b.load_cv(stats) == b.max_vio(stats) == 0.0
    assert b.load_cv_batch(stats) == b.max_vio_batch(stats) == 1.0
    planted = np.mean([b.max_violation(counts) for counts in stats.counts_TE])
    assert planted != b.max_vio(stats)


def test_a_collapsed_layer_is_not_hidden_by_pooling():
    # Eight experts: one layer wholly on expert 0, the other even over the seven that the first left alone.
    sets = [[[0]] * 700, [[1 + n % 7] for n in range(700)]]
    records = [record_of(chosen_of(chosen, 8), layer) for layer, chosen in enumerate(sets)]
    layers = statistics_of(records, tokens_of(700, ids=[0] * 700), top_k=1)
    table = compute_metrics(layers)
    assert table["0", "max_vio"] == pytest.approx(7.0)
    assert table["1", "max_vio"] == pytest.approx(1 / 7)
    assert table["all", "max_vio"] == pytest.approx((7 + 1 / 7) / 2)
    pooled = layers[0].counts_E + layers[1].counts_E
    assert b.max_violation(pooled) == pytest.approx(3.0) and b.unused_share(pooled) == 0


def test_tokens_short_of_experts():
    stats = layer_of([[0, 1], [0], [], [0, 1, 2]], 3, top_k=2)
    assert b.quota_short_rate(stats) == 0.5
    assert b.dropped_rate(stats) == 0.25


def test_nothing_assigned_is_not_defined():
    stats = layer_of([[], []], 3, top_k=1)
    assert b.load_cv(stats) is None and b.max_vio_batch(stats) is None and b.expert_entropy(stats) is None
    assert b.dropped_rate(stats) == 1.0
    assert b.expert_entropy_norm(layer_of([[0]], 1, top_k=1)) is None


def test_sequence_metrics_average_the_long_sequences_ratios():
    # Of two experts: 16 assignments to one, 16 shared out 12 to 4, and 15, which are too few to count.
    sets = [[0]] * 16 + [[0]] * 12 + [[1]] * 4 + [[1]] * 15
    stats = _of_sequences(sets, [0] * 16 + [1] * 16 + [2] * 15)
    assert stats.tokens_Q.tolist() == [16, 16, 15] and stats.long_Q.tolist() == [True, True, False]
    assert b.load_cv_sequence(stats) == pytest.approx((1.0 + 0.5) / 2)
    assert b.max_vio_sequence(stats) == pytest.approx((1.0 + 0.5) / 2)
    # Planted fault: with the short one it would be another figure, and so would the whole set's.
    assert b.coefficient_of_variation(stats.counts_QE).mean() > 0.8 > b.load_cv(stats)
    floors = compute_floors([stats]).all()
    assert floors["load_cv_sequence_floor"] == pytest.approx(uniform_balance(16, 2, 1)["load_cv"])
    assert floors["load_cv_sequence_floor"] > floors["load_cv_floor"]


def _of_sequences(sets, sequences):
    return layer_of(sets, 2, top_k=1, sequences=sequences)


def test_without_a_long_sequence_there_is_no_figure():
    stats = _of_sequences([[0]] * 8, [0] * 8)
    assert b.load_cv_sequence(stats) is None and b.max_vio_sequence(stats) is None
    assert "load_cv_sequence_floor" not in compute_floors([stats]).all()


def test_sequences_of_several_batches_stay_apart():
    records, tokens = [record_of(chosen_of([[0]] * 16 + [[1]] * 16, 2))], tokens_of(32)
    (stats,) = statistics_of(records, tokens, 1, batches=[slice(0, 16), slice(16, 32)])
    assert stats.counts_QE.tolist() == [[16, 0], [0, 16]] and b.load_cv_sequence(stats) == 1.0 > b.load_cv(stats)
    both = merged([stats, stats])
    assert both.counts_QE.shape == (4, 2) and both.tokens_Q.tolist() == [16] * 4


def test_what_one_rank_does_not_know_nobody_does():
    (known,) = statistics_of([record_of(chosen_of([[0]] * 4, 2))], tokens_of(4), 1)
    known = replace(known, entropy_sum=1.0, gap_sum=1.0)
    unknown = replace(known, entropy_sum=None, gap_sum=None)
    assert merged([known, known]).entropy_sum == 2.0
    for ranks in ([known, unknown], [unknown, known]):
        assert merged(ranks).entropy_sum is merged(ranks).gap_sum is None and merged(ranks).num_tokens == 8
