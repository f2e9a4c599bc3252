from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau

from spectra_exp.measure import compute_stability, stability
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.measure.stability import LayerTrajectory

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)


def _trajectory(sets_TP, num_experts, top_k, counts_TE=None, fractions=None) -> LayerTrajectory:
    sets = np.array([[_padded(s, num_experts) for s in sets_P] for sets_P in sets_TP], dtype=np.int16)
    counts = np.ones((len(sets), num_experts), dtype=np.int64) if counts_TE is None else np.array(counts_TE)
    return LayerTrajectory(
        layer=0,
        top_k=top_k,
        num_tokens=100,
        fractions=fractions or FRACTIONS[-len(sets) :],
        used_TPE=np.stack([stability.expert_sets(s, num_experts) for s in sets]),
        counts_TGE=counts[:, None],
    )


def _padded(experts, width):
    return experts + [-1] * (width - len(experts))


def test_consistency_and_saturation_by_hand():
    moves = _trajectory([[[0, 1], [2, 3]], [[1, 0], [2, 0]], [[2, 3], [2, 0]]], 4, top_k=2)
    # Common experts 2 and 1, then 0 and 2, of k = 2 each; against the last: 0 and 1, then 0 and 2.
    assert stability.routing_consistency(moves) == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert stability.router_saturation(moves) == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert stability.saturation_curve(moves) == pytest.approx([0.25, 0.5, 1.0])


def test_padding_is_not_an_expert_in_common():
    short = _trajectory([[[0], []], [[0], []]], 3, top_k=2)
    assert stability.routing_consistency(short) == pytest.approx(0.25)
    planted = np.mean([[0, -1] == [0, -1], [-1, -1] == [-1, -1]])
    assert planted == 1.0


@pytest.mark.parametrize(
    ("agrees", "settled"),
    [([1, 1, 1, 1], 0.1), ([0, 1, 1, 1], 0.25), ([1, 0, 1, 1], 0.5), ([1, 1, 1, 0], 1.0), ([0, 0, 0, 1], 0.75)],
)
def test_fraction_to_stability_is_where_agreement_stays_not_where_it_first_comes(agrees, settled):
    sets = [[[0]] if same else [[1]] for same in agrees] + [[[0]]]
    assert stability.fraction_to_stability(_trajectory(sets, 2, top_k=1)) == settled


def test_usage_variance_by_hand():
    drift = _trajectory([[[0]], [[0]]], 2, 1, counts_TE=[[30, 10], [10, 10]])
    # Shares 0.75, 0.25 and 0.5, 0.5: a standard deviation of 0.125 for each.
    assert stability.usage_variance(drift) == pytest.approx(0.125)
    same = _trajectory([[[0]], [[0]]], 2, 1, counts_TE=[[30, 10], [300, 100]])
    assert stability.usage_variance(same) == pytest.approx(0.0)


@settings(max_examples=100)
@given(arrays(np.int64, st.tuples(st.just(2), st.integers(2, 8)), elements=st.integers(0, 5)))
def test_kendall_equals_scipys(counts):
    ours, theirs = stability.kendall_tau(counts[0], counts[1]), kendalltau(counts[0], counts[1]).statistic
    np.testing.assert_allclose(ours, theirs, atol=1e-12, equal_nan=True)


def test_usage_kendall_averages_consecutive_fractions():
    ranks = _trajectory([[[0]]] * 3, 3, 1, counts_TE=[[1, 2, 3], [1, 2, 3], [3, 2, 1]])
    assert stability.usage_kendall_tau(ranks) == pytest.approx((1 - 1) / 2)
    ties = _trajectory([[[0]]] * 2, 3, 1, counts_TE=[[1, 2, 3], [2, 2, 2]])
    assert stability.usage_kendall_tau(ties) is None and stability.usage_kendall_interval(ties) is None


def test_the_interval_is_narrow_when_documents_agree_and_wide_when_they_do_not():
    base = _trajectory([[[0]]] * 2, 4, 1)
    alike = np.tile([[10, 20, 30, 40]], (2, 30, 1))
    low, high = stability.usage_kendall_interval(replace(base, counts_TGE=alike))
    assert low == high == pytest.approx(1.0)
    noise = np.random.default_rng(0).poisson(10, size=(2, 30, 4))
    low, high = stability.usage_kendall_interval(replace(base, counts_TGE=noise))
    assert high - low > 0.5
    # Documents without tokens change nothing.
    padded = np.concatenate([noise, np.zeros((2, 70, 4), dtype=np.int64)], axis=1)
    assert stability.usage_kendall_interval(replace(base, counts_TGE=padded)) == (low, high)


def test_a_single_snapshot_is_not_defined():
    single = _trajectory([[[0]]], 2, 1)
    for name in ("routing_consistency", "router_saturation", "fraction_to_stability", "usage_variance"):
        assert getattr(stability, name)(single) is None
    assert stability.usage_kendall_tau(single) is None
    no_probes = replace(_trajectory([[[0]], [[0]]], 2, 1), used_TPE=np.zeros((2, 0, 2), dtype=bool))
    assert stability.routing_consistency(no_probes) is None and stability.fraction_to_stability(no_probes) is None


def _snapshot(fraction, experts_LPK, counts_LE, top_k=1) -> RoutingSnapshot:
    counts = np.array(counts_LE)[:, None]
    experts = np.array(experts_LPK, dtype=np.int16)
    return RoutingSnapshot(int(100 * fraction), fraction, top_k, 40, counts, counts, experts, experts * 0.0)


def test_layers_are_kept_apart_and_snapshots_put_in_order():
    # Layer 0 never moves; layer 1 moves each time. The later snapshot comes first and is wider.
    late = _snapshot(1.0, [[[0, -1], [1, -1]], [[1, -1], [0, -1]]], [[20, 20], [10, 30]])
    early = _snapshot(0.5, [[[0], [1]], [[0], [1]]], [[20, 20], [20, 20]])
    table = compute_stability([late, early])
    assert table.by_layer()["routing_consistency"] == [1.0, 0.0]
    assert table["all", "routing_consistency"] == 0.5
    assert table.by_layer()["fraction_to_stability"] == [0.5, 1.0]
    assert table.by_layer()["usage_variance"] == pytest.approx([0.0, 0.125])


def test_snapshots_of_other_probes_or_k_are_refused():
    first = _snapshot(0.5, [[[0], [1]]], [[20, 20]])
    for other in (_snapshot(1.0, [[[0]]], [[20, 20]]), _snapshot(1.0, [[[0], [1]]], [[20, 20]], top_k=2)):
        with pytest.raises(ValueError, match="do not belong together"):
            stability.layer_trajectories([first, other])
