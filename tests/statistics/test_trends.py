from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from spectra_exp.statistics.trends import page_trend, slope_over, spearman

_value = st.integers(-50, 50).map(lambda v: v / 10)


def _rising(n: int, k: int, slope: float, seed: int = 0) -> np.ndarray:
    """[N, K] gains that rise, with a level of its own for each seed."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 1.0, (n, 1)) + slope * np.arange(k) + rng.normal(0.0, 0.1, (n, k))


def test_page_by_hand() -> None:
    # Three seeds, each 1 < 2 < 3: L = 3 (1·1 + 2·2 + 3·3) = 42, which one of 6³ orders reaches.
    found = page_trend([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.1, 0.2, 0.3]])
    assert (found.n, found.statistic, found.note) == (3, 42.0, "") and found.p == pytest.approx(1 / 216)
    falling = page_trend([[3.0, 2.0, 1.0], [6.0, 5.0, 4.0], [0.3, 0.2, 0.1]])
    assert falling.p == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.permutations([1, 2, 3, 4]), min_size=3, max_size=3))
def test_page_equals_every_order(rows: list[list[int]]) -> None:
    weight = np.arange(1, 5)
    single = np.array(list(itertools.permutations(weight))) @ weight
    totals = np.add.outer(np.add.outer(single, single), single)
    statistic = (np.array(rows) @ weight).sum()
    found = page_trend(np.array(rows) / 7)
    assert found.statistic == statistic and found.p == pytest.approx(np.mean(totals >= statistic))


def test_page_equals_scipy_and_ignores_the_level_of_a_seed() -> None:
    values = _rising(6, 5, 0.03)
    found, expected = page_trend(values), scipy.stats.page_trend_test(values)
    assert (found.statistic, found.p) == (expected.statistic, pytest.approx(expected.pvalue))
    moved = page_trend(values + np.arange(6)[:, None])
    assert moved == found
    # Planted fault: all values ranked together, as if seeds were not the same runs.
    pooled = scipy.stats.spearmanr(np.tile(np.arange(5), 6), values.ravel()).pvalue
    assert found.p != pytest.approx(pooled, rel=0.2)


def test_page_values_equal_but_for_rounding_tie() -> None:
    exact = page_trend([[1.0, 1.0, 2.0]] * 4)
    noisy = page_trend([[1.0 + 2e-16, 1.0, 2.0]] * 4)
    assert noisy == exact


def test_page_without_a_test() -> None:
    assert page_trend(_rising(2, 4, 1.0)).note == "n<3"
    assert page_trend([]).note == "n<3"
    assert page_trend(_rising(5, 2, 1.0)).note == "fewer than 3 conditions"
    assert page_trend([[1.0] * 4] * 5).note == "zero variance"
    values = _rising(4, 3, 1.0)
    values[1, 2] = math.nan
    found = page_trend(values)
    assert found.note == "1 seed not finite" and found.p == page_trend(values[[0, 2, 3]]).p
    values[2, 0] = math.inf
    lost = page_trend(values)
    assert (lost.n, lost.statistic, lost.p, lost.note) == (2, None, None, "n<3; 2 seeds not finite")
    with pytest.raises(ValueError, match="row per seed"):
        page_trend([1.0, 2.0, 3.0])


def test_spearman_by_hand() -> None:
    # Ranks 1234 against 1243: 1 - 6 (0 + 0 + 1 + 1) / (4 · 15) = 0.8. Of 24 orders 1 has rho 1 and 3 have 0.8, and
    # as many the other way: p = 8/24.
    found = spearman([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0])
    assert found.statistic == pytest.approx(0.8) and found.p == pytest.approx(8 / 24)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_value, _value), min_size=3, max_size=5))
def test_spearman_equals_every_order(points) -> None:
    x, y = np.array(points).T
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    ranks = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    rho = np.array([np.corrcoef(order, ranks[1])[0, 1] for order in itertools.permutations(ranks[0])])
    found = spearman(x, y)
    assert found.statistic == pytest.approx(rho[0]) and rho[0] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    tails = np.mean(rho >= rho[0] - 1e-9), np.mean(rho <= rho[0] + 1e-9)
    assert found.p == pytest.approx(min(1.0, 2 * min(tails)))


def test_spearman_of_many_points_equals_scipy() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 13))
    found, expected = spearman(x, y), scipy.stats.spearmanr(x, y)
    assert (found.statistic, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert spearman(x, -y).statistic == pytest.approx(-found.statistic)
    assert spearman(x, 2 * x).p == pytest.approx(2 / math.factorial(13))  # never 0


def test_spearman_without_a_test() -> None:
    assert spearman([], []).note == "n<3"
    assert spearman([1.0, 2.0], [1.0, 2.0]).note == "n<3"
    assert spearman([1.0, 2.0, 3.0], [0.1, 0.1 + 1e-17, 0.1]).note == "zero variance"
    odd = spearman([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, math.nan, None, 2.0, 3.0])
    assert (odd.n, odd.note) == (3, "2 points not finite") and odd.p == pytest.approx(2 / 6)


def test_slope_by_hand() -> None:
    # Over 0, 1, 2 the slope is (last - first)/2: here 1, 2, 3. Mean 2, s = 1, t = 2√3 at df = 2, where
    # p = 1 - 2√3/√14; half of the interval is 4.302653/√3.
    found = slope_over([[0.0, 5.0, 2.0], [1.0, 1.0, 5.0], [-3.0, 0.0, 3.0]], [0.0, 1.0, 2.0])
    assert (found.n, found.df, found.note) == (3, 2, "") and found.slope == pytest.approx(2.0)
    assert found.t == pytest.approx(2 * math.sqrt(3))
    assert found.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(14))
    half = 4.302653 / math.sqrt(3)
    assert (found.ci_low, found.ci_high) == (pytest.approx(2 - half, abs=1e-6), pytest.approx(2 + half, abs=1e-6))


def test_slope_equals_a_fit_per_seed() -> None:
    covariate = np.log([3.0, 10.0, 45.0, 160.0])
    gains = _rising(6, 4, 0.05)
    slopes = np.polyfit(covariate, gains.T, 1)[0]
    found, other = slope_over(gains, covariate), DescrStatsW(slopes)
    assert found.slope == pytest.approx(slopes.mean())
    assert (found.t, found.p, found.df) == pytest.approx(other.ttest_mean(0.0))
    assert (found.ci_low, found.ci_high) == pytest.approx(other.tconfint_mean())
    moved = slope_over(gains + np.arange(6)[:, None], covariate)
    assert moved.p == pytest.approx(found.p)
    # Planted fault: one line through all points, which takes the runs of a seed for independent.
    pooled = scipy.stats.linregress(np.tile(covariate, 6), gains.ravel())
    assert found.p != pytest.approx(pooled.pvalue, rel=0.2)


def test_slope_without_a_test() -> None:
    sizes = [1.0, 2.0, 3.0]
    two = slope_over(_rising(2, 3, 1.0), sizes)
    assert (two.n, two.p, two.ci_low, two.note) == (2, None, None, "n<3") and two.slope is not None
    assert slope_over([], sizes).note == "n<3" and slope_over([], sizes).slope is None
    assert slope_over([[1.0, 2.0]] * 4, [1.0, 2.0]).note == "fewer than 3 conditions"
    assert slope_over(_rising(4, 3, 1.0), [1.0, 1.0, 2.0]).note == "fewer than 3 conditions"
    flat = slope_over(np.array([[0.1], [0.3], [0.7]]) + np.array([[0.1, 0.2, 0.3]]), sizes)
    assert (flat.p, flat.note) == (None, "zero variance") and flat.slope == pytest.approx(0.1)
    gains = _rising(4, 3, 1.0)
    gains[0, 1] = math.nan
    odd = slope_over(gains, sizes)
    assert (odd.n, odd.note) == (3, "1 seed not finite") and odd.p == pytest.approx(slope_over(gains[1:], sizes).p)
    for covariate in ([1.0, 2.0], [1.0, 2.0, math.nan]):
        with pytest.raises(ValueError, match="covariate"):
            slope_over(gains, covariate)
