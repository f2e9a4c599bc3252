"""Differences per token over documents and seeds: against a bootstrap, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spectra_exp.statistics.by_document import NO_SPREAD, ONE_DOCUMENT, over_seeds, per_token
from spectra_exp.statistics.practical import chances, verdict


def lengths(rng: np.random.Generator, documents: int) -> np.ndarray:
    return np.maximum(5, rng.lognormal(4, 0.8, documents)).round()


def test_the_error_is_that_of_a_bootstrap_over_documents_and_far_above_that_over_tokens() -> None:
    rng = np.random.default_rng(0)
    tokens = lengths(rng, 400)
    own = rng.normal(0.05, 0.3, 400)
    by_token = [rng.normal(mean, 1.0, int(size)) for mean, size in zip(own, tokens, strict=True)]
    difference = np.array([values.sum() for values in by_token])
    found = per_token(difference, tokens)
    assert found.difference == pytest.approx(difference.sum() / tokens.sum()) and found.df == 399
    drawn = rng.integers(0, 400, (4000, 400))
    resampled = difference[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    assert found.error == pytest.approx(resampled.std(), rel=0.06)
    every = np.concatenate(by_token)
    assert found.error > 2 * every.std() / np.sqrt(len(every))
    low, high = found.interval()
    assert low < found.difference < high and found.p == pytest.approx(2 * stats.t.sf(abs(found.t), 399))
    # Equal lengths: Student's t of the documents' means.
    equal = per_token(own * 7, np.full(400, 7.0))
    assert equal.p == pytest.approx(stats.ttest_1samp(own, 0).pvalue)


def test_one_document_no_spread_and_one_seed_are_said() -> None:
    assert per_token(np.array([3.0]), np.array([2.0])).note == ONE_DOCUMENT
    same = per_token(np.array([0.2, 0.3]), np.array([2.0, 3.0]))
    assert same.difference == pytest.approx(0.1) and same.note == NO_SPREAD
    assert (same.p, same.interval()) == (None, (None, None))
    assert per_token(np.zeros(4), np.ones(4)).note == NO_SPREAD
    with pytest.raises(ValueError, match="one seed"):
        over_seeds(np.zeros((1, 3)), np.ones(3))


def holds(seeds: int, sizes: tuple[float, float, float], repeats: int = 600) -> tuple[float, float]:
    """How often the interval for both, and that over seeds alone, hold a difference of zero."""
    rng = np.random.default_rng(seeds)
    held = np.zeros(2)
    of_seed, of_document, of_cell = sizes
    for _ in range(repeats):
        tokens = lengths(rng, 80)
        effects = rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_document, 80)
        found = over_seeds((effects + rng.normal(0, of_cell, (seeds, 80))) * tokens, tokens)
        assert found.both.error >= found.seeds.error
        for place, estimate in enumerate((found.both, found.seeds)):
            low, high = estimate.interval()
            held[place] += low <= 0 <= high
    return held[0] / repeats, held[1] / repeats


@pytest.mark.parametrize("seeds", [3, 5, 7, 10])
@pytest.mark.parametrize("sizes", [(0.2, 1.0, 1.0), (0.2, 0.0, 0.3), (0.02, 1.0, 1.0)])
def test_the_interval_for_seeds_and_text_holds_the_truth_as_often_as_it_says(
    seeds: int, sizes: tuple[float, float, float]
) -> None:
    both, alone = holds(seeds, sizes)
    assert 0.905 <= both <= 0.98
    if sizes[1] and seeds == 10:
        assert alone < 0.75


def test_what_the_variance_is_of_and_when_text_is_enough() -> None:
    rng = np.random.default_rng(1)
    shape, tokens = (200, 300), np.full(300, 50.0)
    a, b, c = 0.1, 0.5, 1.0
    effects = rng.normal(0, a, (200, 1)) + rng.normal(0, b, 300) + rng.normal(0, c, shape)
    found = over_seeds(effects * tokens, tokens)
    assert found.seed == pytest.approx((a**2 + c**2 / 300) / 200, rel=0.25)
    assert found.document == pytest.approx((b**2 + c**2 / 200) / 300, rel=0.25)
    assert found.cell == pytest.approx(c**2 / 300 / 200, rel=0.05)
    # With so many tokens what text adds is a tenth of what seeds add.
    text = (b**2 + c**2 / 200) / (found.enough_tokens / 50)
    assert text == pytest.approx(0.1 * a**2 / 200, rel=0.3)
    assert found.text_share == pytest.approx((b**2 / 300) / (b**2 / 300 + found.seed), rel=0.25)


def test_chances_are_those_of_scipys_t_and_verdicts_say_what_the_intervals_allow() -> None:
    differences = np.array([0.03, 0.01, 0.02, 0.035, 0.0])
    error = differences.std(ddof=1) / np.sqrt(5)
    found = chances(differences.mean(), error, 4, 0.02)
    t = stats.t(4, loc=differences.mean(), scale=error)
    assert (found.below, found.within, found.above) == pytest.approx(
        (t.cdf(-0.02), t.cdf(0.02) - t.cdf(-0.02), t.sf(0.02))
    )
    assert verdict((-0.01, 0.015), 0.9, 0.02, "lower") == "equivalent"
    # Also where a difference is found: it is negligible all the same.
    assert verdict((0.01, 0.015), 0.001, 0.02, "lower") == "equivalent"
    assert verdict((-0.05, -0.03), 0.001, 0.02, "lower") == verdict((0.03, 0.05), 0.001, None, "higher") == "better"
    assert verdict((0.03, 0.05), 0.001, 0.02, "lower") == "worse"
    assert verdict((0.03, 0.05), 0.2, 0.02, "lower") == verdict((-1, 1), 0.5, None, "lower") == "undecided"
    assert verdict((0.03, 0.05), 0.001, 0.02, "none") == "higher" and verdict((None, None), None, 0.02, "none") == ""
