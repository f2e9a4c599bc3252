from __future__ import annotations

import numpy as np
from routing_cases import chosen_of, record_of, statistics_of, tokens_of

from spectra_exp.measure.snapshot import RoutingSnapshot


def _snapshot() -> RoutingSnapshot:
    # Layer 1 gives its second token three experts, so both layers keep three columns.
    records = [record_of(chosen_of(sets, 3), i) for i, sets in enumerate([[[0], [1, 2]], [[2], [0, 1, 2]]])]
    tokens = tokens_of(2, documents=[0, 1], domains=[1, 0])
    return RoutingSnapshot.from_statistics(statistics_of(records, tokens, 2, probes=2), step=30, fraction=0.25)


def test_a_snapshot_by_hand():
    snapshot = _snapshot()
    assert snapshot.counts_LE.tolist() == [[1, 1, 1], [1, 1, 2]]
    assert snapshot.domain_counts_LME.tolist() == [[[0, 1, 1], [1, 0, 0]], [[1, 1, 1], [0, 0, 1]]]
    assert snapshot.probe_experts_LPK.tolist() == [[[0, -1, -1], [1, 2, -1]], [[2, -1, -1], [0, 1, 2]]]
    assert snapshot.probe_weights_LPK[0, 1, 2] == 0.0


def test_a_file_gives_the_same_snapshot_back(tmp_path):
    snapshot = _snapshot()
    np.savez(tmp_path / "step.npz", **snapshot.to_arrays())
    with np.load(tmp_path / "step.npz") as arrays:
        again = RoutingSnapshot.from_arrays(dict(arrays))
    for name, value in vars(snapshot).items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert np.asarray(getattr(again, name)).dtype == np.asarray(value).dtype
    assert isinstance(again.step, int) and isinstance(again.fraction, float)
