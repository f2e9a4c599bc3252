from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from spectra_exp.statistics.clustered import (
    ONE_CLUSTER,
    clustered_difference,
    difference_by_domain,
    items_difference,
)
from spectra_exp.statistics.comparison import NO_SPREAD


def _documents(rng: np.random.Generator, count: int, effect: float = 0.0, shared: float = 0.1):
    """Sums of two models' losses and tokens; a document's tokens differ together by `shared` nats."""
    size_G = rng.integers(20, 400, count)
    b_G = 3.0 * size_G + rng.normal(0, 5, count)
    a_G = b_G + size_G * (effect + rng.normal(0, shared, count)) + np.sqrt(size_G) * rng.normal(0, 0.2, count)
    return a_G, b_G, size_G


def test_by_hand() -> None:
    # Differences 2, 1, 6 of 10, 10, 20 tokens: θ = 9/40 = 0.225, residuals -0.25, -1.25, 1.5, whose squares sum to
    # 3.875; se = √(3/2 · 3.875)/40.
    found = clustered_difference(np.array([32.0, 31, 66]), np.array([30.0, 30, 60]), np.array([10, 10, 20]))
    assert found.difference == pytest.approx(0.225) and found.df == 2 and found.claim == "these runs"
    assert found.se == pytest.approx(np.sqrt(1.5 * 3.875) / 40)
    assert (found.mean_a, found.mean_b) == pytest.approx((129 / 40, 3.0))


def test_equal_sizes_are_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 25))
    found, known = items_difference(a, b, range(25)), scipy.stats.ttest_rel(a, b)
    assert found.p == pytest.approx(known.pvalue, rel=1e-9)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(known.confidence_interval()))


def test_standard_error_is_that_of_a_bootstrap_over_documents_and_not_of_tokens() -> None:
    rng = np.random.default_rng(1)
    a_G, b_G, size_G = _documents(rng, 150)
    found = clustered_difference(a_G, b_G, size_G)
    drawn = rng.integers(0, 150, (4000, 150))
    boot = ((a_G - b_G)[drawn].sum(1) / size_G[drawn].sum(1)).std(ddof=1)
    assert found.se == pytest.approx(boot, rel=0.05)
    # As if each document's tokens differed by themselves: variance of (a − b)/√tokens, over all tokens.
    per_token = np.sqrt((((a_G - b_G) - found.difference * size_G) ** 2 / size_G).mean() / size_G.sum())
    assert per_token < found.se


def test_coverage_over_other_texts() -> None:
    rng = np.random.default_rng(2)
    found = [clustered_difference(*_documents(rng, 40, 0.03)) for _ in range(1500)]
    covered = np.mean([d.ci_low <= 0.03 <= d.ci_high for d in found])
    assert 0.925 <= covered <= 0.97


def test_items_that_share_a_passage_are_not_independent() -> None:
    rng = np.random.default_rng(3)
    passages = np.repeat(np.arange(30), 8)
    b = rng.random(240)
    a = b + rng.normal(0, 1, 30)[passages]
    apart, together = items_difference(a, b, range(240)), items_difference(a, b, passages.tolist())
    assert together.clusters == 30 and together.difference == pytest.approx(apart.difference)
    assert together.se > 2 * apart.se
    # Groups of one size: the test of the groups' means.
    known = scipy.stats.ttest_1samp((a - b).reshape(30, 8).mean(1), 0)
    assert together.p == pytest.approx(known.pvalue, rel=1e-9)


def test_pairing_finds_what_two_standard_errors_do_not() -> None:
    rng = np.random.default_rng(4)
    skill = rng.random(400)
    b = (rng.random(400) < skill).astype(float)
    a = np.where(rng.random(400) < 0.06, 1.0, b)
    unpaired = scipy.stats.ttest_ind(a, b).pvalue
    assert items_difference(a, b, range(400)).p < 0.01 < unpaired


def test_domains_are_corrected_together() -> None:
    rng = np.random.default_rng(5)
    a_G, b_G, size_G = _documents(rng, 60)
    domains = ["code", "web", "math"] * 20
    found = difference_by_domain(a_G, b_G, size_G, domains)
    assert list(found) == ["code", "math", "web"]
    smallest = min(found.values(), key=lambda d: d.p)
    assert smallest.p_corrected == pytest.approx(min(1.0, 3 * smallest.p))
    total = sum(d.difference * d.size for d in found.values()) / size_G.sum()
    assert total == pytest.approx(clustered_difference(a_G, b_G, size_G).difference)


def test_what_cannot_be_said() -> None:
    one = clustered_difference(np.array([3.0]), np.array([2.0]), np.array([10]))
    assert one.note == ONE_CLUSTER and one.se is None and one.p is None and one.difference == pytest.approx(0.1)
    same = clustered_difference(np.array([3.0, 6.0]), np.array([2.0, 4.0]), np.array([10, 20]))
    assert same.note == NO_SPREAD and same.p is None and same.ci_low is None
    for bad in ([0, 10], [10], [10, np.nan]):
        with pytest.raises(ValueError):
            clustered_difference(np.array([1.0, 2]), np.array([1.0, 2]), np.array(bad))
    with pytest.raises(ValueError):
        clustered_difference(np.array([]), np.array([]), np.array([]))
