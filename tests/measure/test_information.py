from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from spectra_exp.measure.information import entropy, mutual_information, normalised_mutual_information

TABLES = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 9))


def _labels(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(table.shape)
    return np.repeat(rows.ravel(), table.ravel()), np.repeat(columns.ravel(), table.ravel())


@given(TABLES.filter(lambda t: t.sum() > 0))
def test_mutual_information_equals_scikit_learns(table):
    a, b = _labels(table)
    assert mutual_information(table) == pytest.approx(mutual_info_score(a, b), abs=1e-9)
    ours = normalised_mutual_information(table)
    if ours is None:
        assert len(set(a)) == len(set(b)) == 1
    else:
        assert ours == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)
        assert 0 <= ours <= 1


@given(arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1)).filter(lambda x: x.sum() > 0))
def test_entropy_equals_scipys(weights):
    shares = weights / weights.sum()
    assert entropy(shares) == pytest.approx(scipy_entropy(shares), abs=1e-9)


def test_limits():
    assert normalised_mutual_information(np.diag([3, 5])) == pytest.approx(1.0)
    assert normalised_mutual_information(np.outer([1, 2], [3, 4])) == pytest.approx(0.0, abs=1e-12)
    assert normalised_mutual_information(np.array([[7, 0], [0, 0]])) is None
    assert mutual_information(np.zeros((2, 2), dtype=np.int64)) is None
