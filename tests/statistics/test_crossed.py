from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from simulate import cells, coverage

from spectra_exp.statistics.comparison import NO_SPREAD
from spectra_exp.statistics.crossed import crossed_difference


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("document_sd", [0.0, 0.1, 0.3])
def test_two_way_interval_covers(seeds: int, document_sd: float) -> None:
    assert coverage(seeds, document_sd)[0] >= 0.92


def test_seeds_alone_do_not_cover_other_texts() -> None:
    two_way, seed_only = coverage(5, 0.3)
    assert seed_only < 0.75 < 0.93 < two_way


def test_seed_only_interval_is_the_paired_t_interval() -> None:
    d_SG, size_G = cells(np.random.default_rng(0), 5, 20, 0.02, 0.1)
    known = scipy.stats.ttest_1samp(d_SG.sum(1) / size_G.sum(), 0).confidence_interval()
    found = crossed_difference(d_SG, size_G)
    assert (found.seed_low, found.seed_high) == pytest.approx(tuple(known))
    assert found.variance >= found.v_seed and found.ci_high - found.ci_low > 0 and found.claim == "these methods"


def test_for_other_text_too_is_never_narrower_than_for_this_text() -> None:
    rng = np.random.default_rng(3)
    narrow = 0
    for _ in range(200):
        found = crossed_difference(*cells(rng, 3, 60, 0.01, 0.03))
        assert found.ci_low <= found.seed_low + 1e-15 and found.seed_high <= found.ci_high + 1e-15
        narrow += found.df == 2
        # One test: p is below 0.05 where the interval leaves out 0.
        assert (found.p < 0.05) == (found.ci_low > 0 or found.ci_high < 0)
    assert narrow > 100
    # What is of the text is said either way.
    assert 0 < found.share_text < 1 and found.enough_tokens > 0


def test_documents_of_one_size_are_the_analysis_of_variance() -> None:
    d_SG = np.random.default_rng(4).normal(0, 1, (4, 6)) + np.random.default_rng(5).normal(0, 1.5, 6)
    found = crossed_difference(d_SG, np.ones(6))
    seed_S, document_G = d_SG.mean(axis=1) - d_SG.mean(), d_SG.mean(axis=0) - d_SG.mean()
    cell_SG = d_SG - d_SG.mean() - seed_S[:, None] - document_G
    squares = 6 * (seed_S**2).sum() / 3, 4 * (document_G**2).sum() / 5, (cell_SG**2).sum() / 15
    seed, document, cell = (square / 24 for square in squares)
    assert (found.v_seed, found.v_document, found.v_cell) == pytest.approx((seed, document, cell))
    assert found.variance == pytest.approx(seed + document - cell)
    # More than the 3 of the smaller number of clusters, which would be too wide.
    assert found.df == pytest.approx((seed + document - cell) ** 2 / (seed**2 / 3 + document**2 / 5 + cell**2 / 15))
    assert found.df > 3.5


def test_parts_are_the_variances_that_were_put_in() -> None:
    rng = np.random.default_rng(1)
    count, seeds = 3000, 5
    parts, sizes = np.zeros(3), np.zeros(3)
    for _ in range(count):
        d_SG, size_G = cells(rng, seeds, 40, 0.02, 0.1, 0.08)
        found, q = crossed_difference(d_SG, size_G), float((size_G**2).sum() / size_G.sum() ** 2)
        parts += np.array([found.v_seed, found.v_document, found.v_cell]) / count
        sizes += (
            np.array([(0.02**2 + q * 0.08**2) / seeds, q * (0.1**2 + 0.08**2 / seeds), q * 0.08**2 / seeds]) / count
        )
    assert parts == pytest.approx(sizes, rel=0.05)


def test_text_is_wasted_where_seeds_vary_and_not_where_documents_do() -> None:
    rng = np.random.default_rng(2)
    wasted = crossed_difference(*cells(rng, 10, 200, 0.1, 0.01))
    needed = crossed_difference(*cells(rng, 10, 200, 0.02, 0.8))
    assert wasted.enough_tokens < wasted.tokens and wasted.share_text < 0.1
    assert needed.enough_tokens > needed.tokens and needed.share_text > 0.5
    # At that size the text's part widens the interval by 5 %.
    scale = wasted.enough_tokens / wasted.tokens
    endless = wasted.variance * (1 - wasted.share_text)
    assert np.sqrt((endless + wasted.variance * wasted.share_text / scale) / endless) == pytest.approx(1.05)


def test_what_cannot_be_said() -> None:
    same = crossed_difference(np.outer(np.ones(3), [1.0, 2.0]), np.array([10, 20]))
    assert same.note == NO_SPREAD and same.p is None and same.difference == pytest.approx(0.1)
    # Seeds with as many hits in sum, in other documents, are no certainty.
    tied = crossed_difference(np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), np.array([10, 10, 10]))
    assert tied.note == NO_SPREAD and tied.p is None and tied.ci_low is None
    for d_SG, size_G in (
        (np.ones((1, 3)), np.ones(3)),
        (np.ones((3, 1)), np.ones(1)),
        (np.ones((2, 2)), np.array([1, 0])),
        (np.full((2, 2), np.nan), np.ones(2)),
    ):
        with pytest.raises(ValueError):
            crossed_difference(d_SG, size_G)
