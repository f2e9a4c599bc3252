from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.statistics.intervals import mean_interval

_values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12)


def test_by_hand() -> None:
    # Mean 2, s = 1, n = 3: t(0.975, 2) = 4.30265, half-width 4.30265 / sqrt(3).
    found = mean_interval([1.0, 2.0, 3.0])
    assert found is not None and found.n == 3 and found.mean == 2.0
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)


def _normal_half_width(values: list[float]) -> float:
    """Planted fault: the normal quantile, which is too narrow for a few seeds."""
    return 1.959964 * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _population_half_width(values: list[float]) -> float:
    """Planted fault: the population's standard deviation."""
    return 4.302653 * float(np.std(values)) / math.sqrt(len(values))


@pytest.mark.parametrize("fault", [_normal_half_width, _population_half_width])
def test_planted_faults_differ(fault) -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    assert found is not None and found.half_width != pytest.approx(fault([1.0, 2.0, 3.0]), rel=0.05)


@given(_values)
def test_equal_to_scipy(values: list[float]) -> None:
    found = mean_interval(values)
    assert found is not None and found.low is not None and found.high is not None
    spread = scipy.stats.sem(values)
    if spread > 1e-9:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread)
        np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-9, atol=1e-9)


def test_missing_values_do_not_count_and_one_has_no_interval() -> None:
    assert mean_interval([]) is None
    assert mean_interval([None, math.nan, math.inf]) is None
    one = mean_interval([None, 4.0, math.nan])
    assert one is not None and (one.n, one.mean, one.low, one.half_width) == (1, 4.0, None, None)


def test_coverage_is_what_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [mean_interval(random.normal(5.0, 2.0, size=3)) for _ in range(3000)]
    covered = np.mean([i.low <= 5.0 <= i.high for i in intervals])
    assert 0.94 < covered < 0.96
