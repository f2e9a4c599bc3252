from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.weightstats import ttost_paired

from spectra_exp.statistics.comparison import compare, difference_of
from spectra_exp.statistics.practical import equivalent_p, region_probabilities, word


def test_probabilities_are_those_of_the_posterior() -> None:
    values = np.array([0.01, 0.03, -0.02, 0.015, 0.0])
    se = values.std(ddof=1) / np.sqrt(5)
    found = region_probabilities(values.mean(), se, 4, 0.02)
    posterior = scipy.stats.t(4, values.mean(), se)
    expected = posterior.cdf(-0.02), posterior.cdf(0.02) - posterior.cdf(-0.02), posterior.sf(0.02)
    assert (found.below, found.within, found.above) == pytest.approx(expected, rel=1e-9)


def test_probabilities_are_those_of_draws_from_the_posterior() -> None:
    # Flat prior of the mean, 1/σ of the spread: σ² is (n − 1)s²/χ², and the mean normal about that seen.
    rng, values = np.random.default_rng(0), np.array([0.01, 0.05, -0.02, 0.015])
    sigma = np.sqrt(3 * values.var(ddof=1) / rng.chisquare(3, 200_000))
    drawn = rng.normal(values.mean(), sigma / 2)
    found = region_probabilities(values.mean(), values.std(ddof=1) / 2, 3, 0.02)
    assert found.within == pytest.approx((np.abs(drawn) < 0.02).mean(), abs=0.005)
    assert found.above == pytest.approx((drawn > 0.02).mean(), abs=0.005)


@pytest.mark.parametrize(
    ("difference", "p", "equal", "better", "said"),
    [
        (-0.5, 0.01, 0.9, "lower", "better"),
        (-0.5, 0.01, 0.9, "higher", "worse"),
        (0.5, 0.01, None, "lower", "worse"),
        # Certain, and negligible.
        (-0.001, 0.001, 0.001, "lower", "equivalent"),
        (-0.5, 0.05, 0.05, "lower", "undecided"),
        (-0.5, None, None, "lower", "undecided"),
        (0.0, None, 0.01, "lower", "equivalent"),
        (-0.5, 0.01, 0.9, "none", "lower"),
        (0.5, 0.01, 0.9, "none", "higher"),
        (0.5, 0.06, 0.9, "none", "undecided"),
    ],
)
def test_words(difference: float, p: float | None, equal: float | None, better, said: str) -> None:
    assert word(difference, p, equal, better) == said


def test_equivalent_where_the_90_percent_interval_lies_within_the_region() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        arm = dict(enumerate(rng.normal(0.005, 0.02, 5)))
        zero = dict.fromkeys(arm, 0.0)
        found, (low, high) = compare(arm, zero), difference_of(arm, zero).interval(0.9)
        equal = equivalent_p(found.difference, found.se, found.df, 0.02)
        assert equal == pytest.approx(ttost_paired(np.array(list(arm.values())), np.zeros(5), -0.02, 0.02)[0], rel=1e-9)
        assert (word(found.difference, None, equal, "lower") == "equivalent") == (low > -0.02 and high < 0.02)


def test_a_region_needs_a_margin_and_a_spread() -> None:
    for se, margin in ((0.0, 0.1), (0.1, 0.0), (float("nan"), 0.1), (0.1, -0.1), (0.1, np.nan), (0.1, np.inf)):
        with pytest.raises(ValueError, match="above zero"):
            region_probabilities(0.0, se, 4, margin)
