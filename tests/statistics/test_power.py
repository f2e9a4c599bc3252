"""Seeds that find a difference, against statsmodels, and the limit of a spread, against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from statsmodels.stats.power import TTestPower

from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.power import MOST, power_of, seeds_needed, spread_of


@given(st.floats(0.01, 5), st.integers(2, 200), st.sampled_from([0.05, 0.05 / 13, 0.001]))
def test_power_is_that_of_statsmodels(effect: float, seeds: int, alpha: float) -> None:
    # Its two-sided form adds the tail of the wrong sign, and is no number where that is very far out.
    expected = TTestPower().power(effect, seeds, alpha / 2, alternative="larger")
    # Neither sums up a chance to miss it that is below 1e-300.
    assert power_of(effect, seeds, alpha) == pytest.approx(1.0 if np.isnan(expected) else expected, abs=1e-6)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("effect", [0.05, 0.3, 0.7, 1.5])
def test_seeds_are_the_fewest_that_reach_the_power(effect: float, alpha: float, power: float) -> None:
    found = seeds_needed(2 * effect, 2.0, power, alpha)
    assert found == max(3, int(np.ceil(TTestPower().solve_power(effect, alpha=alpha, power=power) - 1e-6)))


def test_more_seeds_than_anybody_has_are_no_number() -> None:
    assert seeds_needed(1e-6, 1.0, 0.8) is None and seeds_needed(10.0, 1.0, 0.8) == 3
    assert seeds_needed(1.0, 100.0, 0.8) < MOST
    assert seeds_needed(0.0066, 1.0, 0.8) is None  # 180,000


def test_it_is_the_inverse_of_the_detectable_difference() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (2, 8))
    found, sd = compare(dict(enumerate(a)), dict(enumerate(b))), float((a - b).std(ddof=1))
    assert seeds_needed(found.detectable * 1.0001, sd, 0.8) == 8


def test_a_spread_is_pooled_within_comparisons_and_its_limit_holds() -> None:
    rng = np.random.default_rng(1)
    low, naive, means = [], [], rng.normal(0, 100, 4)
    for _ in range(2000):
        # Four rows against one: their differences share its noise.
        differences = (rng.normal(0, 1, (5, 4)) + rng.normal(0, 1, (5, 1))) / np.sqrt(2) + means
        found = spread_of(differences.T)
        low.append(found.upper < 1)
        naive.append(found.sd * np.sqrt(16 / chi2.ppf(0.05, 16)) < 1)
        assert found.df == 4 and found.sd < found.upper
    most = 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)
    # As if the four were independent, it would be too low too often.
    assert np.mean(low) < most < np.mean(naive)
    hand = spread_of([[1, 2, 3], [10, 14]])
    assert (hand.sd, hand.df) == (pytest.approx(np.sqrt(10 / 3)), 2)
    assert hand.upper == pytest.approx(np.sqrt(10 / 3) * np.sqrt(2 / 0.10259), rel=1e-3)


def test_what_has_no_spread_says_so() -> None:
    assert spread_of([]).note == spread_of([[1.0]]).note == "n<2"
    assert spread_of([[0.1, 0.1 + 1e-15]], scale=5.0).note == "zero variance"
    assert spread_of([[1.0, 1.0], [2.0]]).sd is None
