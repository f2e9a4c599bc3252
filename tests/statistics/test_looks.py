from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from simulate import STUDIES, another_figure, peek

from spectra_exp.statistics import looks
from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.looks import look, schedule


def _most(studies: int) -> float:
    """5 % and two standard errors of a share over so many studies."""
    return 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)


def test_looks_are_planned_ahead() -> None:
    assert schedule(3) == (3,) and schedule(10) == (3, 5, 7, 10) and schedule(22) == (3, 5, 7, 10, 15, 20, 22)
    assert schedule(12) == (3, 5, 7, 10, 12)
    with pytest.raises(ValueError, match="needs 3"):
        schedule(2)


def test_levels_grow_with_the_share_of_seeds() -> None:
    # As docs/statistics.md has them; simulated with an error of about 0.0003.
    assert looks._level(schedule(10)) == pytest.approx([0.0077, 0.0128, 0.0179, 0.0256], abs=0.0005)


def test_one_look_is_the_t_test() -> None:
    values = np.random.default_rng(0).normal(1, 1, 3)
    known, found = scipy.stats.ttest_1samp(values, 0), look(values, 3, 0.5)
    assert found.p == pytest.approx(known.pvalue, abs=0.002)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval()), rel=0.02)
    above = scipy.stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    assert found.equivalent_p == pytest.approx(max(above, below), abs=0.002)


def test_interval_leaves_out_zero_where_p_is_small_at_this_look() -> None:
    for n in (3, 5, 7, 10):
        values = np.random.default_rng(n).normal(0, 1, n)
        level = looks._level(schedule(10))[schedule(10).index(n)]
        # Moved so that this look alone is just at its boundary.
        t = scipy.stats.t.isf(level / 2, n - 1)
        values = values - values.mean() + t * values.std(ddof=1) / np.sqrt(n)
        found = look(values, 10)
        assert found.low == pytest.approx(0, abs=1e-9) and found.n == n


def test_evidence_of_an_earlier_look_is_kept_and_seeds_between_looks_wait() -> None:
    first = [1.0, 1.01, 0.99]
    seen, later = look(first, 10), look([*first, 9.0], 10)
    assert later == seen and seen.p < 0.05
    assert look([*first, -3.0, 4.0], 10).p <= seen.p


def test_ties_and_too_few() -> None:
    assert look([0.5] * 3, 10, 0.1).p is None
    # Equal at first and different later: the first look shows nothing.
    assert look([0.0, 0.0, 0.0, 0.1, -0.1], 10, 1.0).p > 0.5
    for count in (2, 11):
        with pytest.raises(ValueError, match=f"{count} differences"):
            look([0.1] * count, 10)


def test_figures_of_a_fixed_number_of_seeds_are_left_out() -> None:
    values = np.random.default_rng(0).normal(1, 1, 7)
    arms = dict(enumerate(values.tolist())), dict.fromkeys(range(7), 0.0)
    found, plain = looks.compare_at_looks(*arms, 10), compare(*arms)
    assert plain.wilcoxon_p is not None and found.wilcoxon_p is None and found.detectable is None
    assert (found.n, found.p) == (7, look(values, 10).p) and found.sequential.equivalent_p is None


def test_false_claims_under_peeking() -> None:
    """A small study; the one of 10,000 studies is in `make test-full`."""
    assert peek(0.0, 0.001, 1500).different <= _most(1500)
    assert peek(1.0, 1.0, 1500).equivalent <= _most(1500)


@pytest.mark.full
@pytest.mark.parametrize("margin", [0.5, 1.0, 2.0])
def test_false_claims_under_peeking_in_full(margin: float) -> None:
    assert peek(0.0, 0.001).different <= _most(STUDIES)
    assert peek(margin, margin).equivalent <= _most(STUDIES)


def test_false_claims_in_another_figure() -> None:
    plain, sequential = another_figure(0.95, 1.0, 1500)
    assert sequential <= _most(1500) and sequential < plain


@pytest.mark.full
def test_seeds_are_saved() -> None:
    found = {effect: peek(effect, 1.0) for effect in (0.0, 1.0, 2.0)}
    assert found[2.0].different > 0.98 and found[2.0].seeds < 6
    assert found[1.0].different > 0.65 and found[0.0].seeds < 9
