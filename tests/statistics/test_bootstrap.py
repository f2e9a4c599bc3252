from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_exp.statistics.bootstrap import bootstrap_interval
from spectra_exp.statistics.mean import mean_interval


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_equals_scipy_and_repeats(method) -> None:
    values = _rng().exponential(size=40)
    found = bootstrap_interval(values, _rng(), method)
    expected = scipy.stats.bootstrap((values,), np.mean, method=method, rng=_rng()).confidence_interval
    assert (found.n, found.mean, found.low, found.high) == (40, values.mean(), expected.low, expected.high)
    assert bootstrap_interval(values, _rng(), method) == found
    assert bootstrap_interval(values, np.random.default_rng(1), method) != found


def test_percentiles_of_resampled_means() -> None:
    values = _rng().normal(3.0, 1.0, 200)
    means = values[np.random.default_rng(1).integers(0, 200, (20_000, 200))].mean(axis=1)
    found = bootstrap_interval(values, _rng(), "percentile")
    np.testing.assert_allclose([found.low, found.high], np.percentile(means, [2.5, 97.5]), atol=0.01)
    near = mean_interval(values)  # with this many normal values the two agree
    assert found.half_width == pytest.approx(near.half_width, rel=0.05)


def test_bca_follows_the_skew() -> None:
    values = _rng().exponential(size=40)
    bca, plain = (bootstrap_interval(values, _rng(), method) for method in ("BCa", "percentile"))
    assert bca.high - bca.mean > 1.2 * (bca.mean - bca.low) and bca.high > plain.high


def test_too_narrow_for_five_seeds() -> None:
    samples = _rng().normal(size=(200, 5))
    intervals = [bootstrap_interval(sample, _rng(), "percentile", 499) for sample in samples]
    assert 0.75 < np.mean([i.low < 0 < i.high for i in intervals]) < 0.91


def test_few_equal_or_no_values() -> None:
    assert bootstrap_interval([], _rng()) is None and bootstrap_interval([None, math.nan], _rng()) is None
    two = bootstrap_interval([1.0, math.inf, 2.0, None], _rng())
    assert (two.n, two.mean, two.low, two.high) == (2, 1.5, None, None)
    equal = bootstrap_interval([0.1 + 0.2, 0.3, 0.3], _rng())
    assert equal.low == equal.high == equal.mean


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 1.0 + 1e-9, 50.0]), min_size=3, max_size=6))
def test_bounds_are_finite_and_hold_the_mean(values: list[float]) -> None:
    found = bootstrap_interval(values, _rng(), "BCa", 499)
    assert found.low <= found.mean * (1 + 1e-12) and found.mean <= found.high * (1 + 1e-12)
