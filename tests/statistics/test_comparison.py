from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import tt_solve_power
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from spectra_exp.statistics.comparison import Comparison, compare, detectable_difference, places, signed_rank_p

_value = st.integers(-5000, 5000).map(lambda v: v / 1000)
_arms = st.lists(st.tuples(_value, _value), min_size=3, max_size=12)


def _seeds(values) -> dict[int, float]:
    return dict(enumerate(values))


def _random_arms(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Losses of two arms that share most of their seed's luck."""
    rng = np.random.default_rng(seed)
    luck = rng.normal(3.0, 0.2, n)
    return luck - 0.1 + rng.normal(0.0, 0.03, n), luck + rng.normal(0.0, 0.03, n)


def _no_test(found: Comparison) -> bool:
    figures = (found.ci_low, found.ci_high, found.t, found.df, found.p, found.d_z, found.wilcoxon_p, found.detectable)
    return all(figure is None for figure in figures) and found.method == ""


def test_paired_by_hand() -> None:
    # Differences -0.1, -0.2, -0.3: mean -0.2, s = 0.1, standard error 0.1/√3, so t = -2√3 = -3.4641 at df = 2.
    # There p = 1 - |t|/√(t² + 2) = 1 - 2√3/√14 = 0.07418, and t(0.975, 2) = 4.302653 times the error is 0.248414.
    found = compare({0: 3.0, 1: 3.2, 2: 3.4}, {0: 3.1, 1: 3.4, 2: 3.7})
    assert (found.n_a, found.n_b, found.n, found.method, found.note) == (3, 3, 3, "paired t", "")
    assert found.mean_a == pytest.approx(3.2) and found.mean_b == pytest.approx(3.4)
    assert found.difference == pytest.approx(-0.2) and found.d_z == pytest.approx(-2.0)
    assert found.t == pytest.approx(-2 * math.sqrt(3)) and found.df == 2
    assert found.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(14), rel=1e-9)
    assert found.ci_low == pytest.approx(-0.2 - 0.248414, abs=1e-6)
    assert found.ci_high == pytest.approx(-0.2 + 0.248414, abs=1e-6)


def test_welch_by_hand() -> None:
    # Means 2 and 4, variances 1 and 4, so the error is √(1/3 + 4/3), t = -2/√(5/3) = -1.549193, and
    # df = (5/3)² / ((1/3)²/2 + (4/3)²/2) = (25/9) / (17/18) = 50/17.
    found = compare({0: 1.0, 1: 2.0, 2: 3.0}, {2: 2.0, 3: 4.0, 4: 6.0})
    assert (found.method, found.note, found.n) == ("Welch's t", "seeds differ: 3 and 3, 1 common", 1)
    assert found.t == pytest.approx(-1.5491933) and found.df == pytest.approx(50 / 17)
    assert found.d_z is None and found.wilcoxon_p is None


@settings(deadline=None)
@given(_arms)
def test_paired_equals_statsmodels(arms) -> None:
    a, b = np.array(arms).T
    assume(np.std(a - b) > 1e-6)
    found, other = compare(_seeds(a), _seeds(b)), DescrStatsW(a - b)
    np.testing.assert_allclose([found.t, found.p, found.df], other.ttest_mean(0.0), rtol=1e-7)
    np.testing.assert_allclose([found.ci_low, found.ci_high], other.tconfint_mean(), rtol=1e-7, atol=1e-9)


@settings(deadline=None)
@given(st.lists(_value, min_size=3, max_size=9), st.lists(_value, min_size=3, max_size=9))
def test_welch_equals_statsmodels(a: list[float], b: list[float]) -> None:
    assume(np.std(a) > 1e-6 and np.std(b) > 1e-6)
    found = compare(_seeds(a), {100 + seed: v for seed, v in enumerate(b)})
    other = CompareMeans(DescrStatsW(a), DescrStatsW(b))
    np.testing.assert_allclose([found.t, found.p, found.df], other.ttest_ind(usevar="unequal"), rtol=1e-7)
    expected = other.tconfint_diff(usevar="unequal")
    np.testing.assert_allclose([found.ci_low, found.ci_high], expected, rtol=1e-7, atol=1e-9)
    assert found.n == 0 and found.method == "Welch's t"


@settings(deadline=None)
@given(_arms)
def test_swapped_arms_flip_the_sign(arms) -> None:
    a, b = (_seeds(column) for column in np.array(arms).T)
    found, swapped = compare(a, b), compare(b, a)
    assert swapped.difference == -found.difference and swapped.p == found.p
    assert swapped.wilcoxon_p == found.wilcoxon_p and swapped.detectable == found.detectable
    if found.p is not None:
        assert (swapped.t, swapped.d_z) == (-found.t, -found.d_z)
        assert (swapped.ci_low, swapped.ci_high) == (-found.ci_high, -found.ci_low)


@settings(deadline=None)
@given(_arms, st.lists(_value, min_size=12, max_size=12))
def test_what_the_arms_of_a_seed_share_does_not_count(arms, shared) -> None:
    a, b = np.array(arms).T
    assume(np.std(a - b) > 1e-6)
    luck = np.array(shared[: len(a)])
    found, moved = compare(_seeds(a), _seeds(b)), compare(_seeds(a + luck), _seeds(b + luck))
    np.testing.assert_allclose([moved.t, moved.p, moved.d_z], [found.t, found.p, found.d_z], rtol=1e-6, atol=1e-9)
    assert moved.wilcoxon_p == found.wilcoxon_p


def test_the_order_of_seeds_does_not_count() -> None:
    a, b = _random_arms(5)
    assert compare(_seeds(a), dict(reversed(_seeds(b).items()))) == compare(_seeds(a), _seeds(b))


def test_planted_faults_give_another_p() -> None:
    a, b = _random_arms(5)
    found = compare(_seeds(a), _seeds(b))
    unpaired = scipy.stats.ttest_ind(a, b, equal_var=False).pvalue
    shuffled = compare(_seeds(a), _seeds(np.roll(b, 1)))
    normal = 2 * scipy.stats.norm.sf(abs(found.t))
    one_sided = scipy.stats.ttest_rel(a, b, alternative="less").pvalue
    for fault in (unpaired, shuffled.p, normal, one_sided):
        assert found.p != pytest.approx(fault, rel=0.2)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_have_no_test(n: int) -> None:
    a, b = _random_arms(5)
    for one, other in ((a[:n], b[:n]), (a[:n], b), (a, b[:n])):
        found = compare(_seeds(one), _seeds(other))
        assert _no_test(found) and found.note == "n<3" and found.n == n
        assert (found.difference is None) == (n == 0)
    assert compare(_seeds(a[:3]), _seeds(b[:3])).p is not None


@pytest.mark.parametrize("step", [0.0, 0.1, -1.7])
def test_zero_variance_has_no_test(step: float) -> None:
    b = np.array([3.1, 0.3, 5.7, 1.9, 0.03, 9.4, 3.45])
    assert step == 0.0 or np.ptp(b + step - b) > 0  # rounding leaves a spread of 1e-16
    found = compare(_seeds(b + step), _seeds(b))
    assert _no_test(found) and found.note == "zero variance" and found.difference == pytest.approx(step)
    constant = compare({0: 0.1, 1: 0.1, 2: 0.1}, {3: 0.3, 4: 0.3, 5: 0.3, 6: 0.3})
    assert _no_test(constant) and constant.note == "zero variance"


def test_a_small_spread_is_not_zero_variance() -> None:
    rng = np.random.default_rng(0)
    b = rng.normal(3.0, 0.2, 5)
    a = b + rng.normal(1e-7, 1e-8, 5)
    found = compare(_seeds(a), _seeds(b))
    assert found.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_welch_with_one_constant_arm_and_without_a_warning() -> None:
    found = compare({0: 1.0, 1: 1.0, 2: 1.0}, {3: 2.0, 4: 3.0, 5: 4.0})
    assert found.df == pytest.approx(2) and found.t == pytest.approx(-2 / math.sqrt(1 / 3))


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    a, b = _random_arms(5)
    both = compare(_seeds(a) | {5: math.nan}, _seeds(b) | {5: math.inf})
    clean = compare(_seeds(a), _seeds(b))
    assert both.note == "2 values not finite" and both.method == "paired t" and (both.t, both.p) == (clean.t, clean.p)
    one = compare(_seeds(a) | {4: math.nan}, _seeds(b))
    assert one.note == "seeds differ: 4 and 5, 4 common; 1 value not finite" and one.method == "Welch's t"
    assert (one.n_a, one.n_b, one.n) == (4, 5, 4)
    assert one.p == pytest.approx(scipy.stats.ttest_ind(a[:4], b, equal_var=False).pvalue)
    missing = compare({0: 1.0, 1: None, 2: 3.0}, {0: 1.5, 1: 1.0, 2: 2.0})
    assert missing.note == "n<3; 1 value not finite" and missing.p is None
    assert compare({0: math.nan}, {}).note == "n<3; 1 value not finite"


@pytest.mark.parametrize("n", [3, 5, 10])
def test_detectable_equals_statsmodels(n: int) -> None:
    a, b = _random_arms(n)
    size = tt_solve_power(nobs=n, alpha=0.05, power=0.8, alternative="two-sided")
    expected = size * np.std(a - b, ddof=1)
    found = compare(_seeds(a), _seeds(b)).detectable
    assert found == pytest.approx(expected, rel=1e-5)
    normal = (1.959964 + 0.841621) * np.std(a - b, ddof=1) / math.sqrt(n)  # planted fault: too small for few seeds
    assert found > 1.1 * normal


def test_detectable_is_found_four_times_in_five() -> None:
    rng, n = np.random.default_rng(0), 5
    shift = detectable_difference(scipy.stats.t.ppf(0.975, n - 1) / math.sqrt(n), n - 1)
    p = scipy.stats.ttest_1samp(rng.normal(shift, 1.0, (20_000, n)), 0.0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.01)  # 3.5 standard errors


def test_wilcoxon_needs_six_differences() -> None:
    b = np.zeros(6)
    a = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    # All six one way: 2 of 2⁶ patterns of signs are as far out.
    assert compare(_seeds(a), _seeds(b)).wilcoxon_p == pytest.approx(2 / 64)
    assert compare(_seeds(a[:5]), _seeds(b[:5])).wilcoxon_p is None
    assert compare(_seeds([*a[:5], 0.0]), _seeds(b)).wilcoxon_p is None  # only five that are not zero


@settings(deadline=None)
@given(st.lists(st.integers(-40, 40).filter(bool), min_size=6, max_size=30, unique_by=abs))
def test_wilcoxon_without_ties_equals_scipy(differences: list[int]) -> None:
    expected = scipy.stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank_p(np.array(differences)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-3, -2, -1, 1, 2, 3]), min_size=6, max_size=9))
def test_wilcoxon_with_ties_equals_every_sign_pattern(differences: list[int]) -> None:
    n = len(differences)
    signs = 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1
    ranks = scipy.stats.rankdata(np.abs(differences))
    sums = np.abs(signs @ ranks)
    expected = np.mean(sums >= abs(np.sign(differences) @ ranks))
    assert signed_rank_p(np.array(differences)) == pytest.approx(expected)
    base = np.linspace(3.0, 3.7, n)
    found = compare(_seeds(base + np.array(differences) / 10), _seeds(base))  # 3.1 + 0.1 - 3.1 is not quite 0.1
    assert found.wilcoxon_p is None if len(set(differences)) == 1 else found.wilcoxon_p == pytest.approx(expected)


_hundredths = st.lists(st.integers(-300, 300).map(lambda v: v / 100), max_size=20)


@given(_hundredths)
def test_places_are_those_of_the_exact_values(values: list[float]) -> None:
    exact = {value: place for place, value in enumerate(sorted(set(values)))}
    shifted = np.array([(value + 7.3) - 7.3 for value in values])  # rounds, each value in its own way
    assert places(shifted, 10.3).tolist() == [exact[value] for value in values]


def test_places_keep_the_shape_and_tell_small_steps_apart() -> None:
    assert places(np.array([[3.0, 1.0], [3.0 + 1e-11, 2.0]]), 3.0).tolist() == [[2, 0], [3, 1]]
    # Planted fault: rounding to a grid parts values that are equal but lie on either side of a step.
    equal = np.array([3.5e-12, 3.4999e-12])
    assert np.ptp(np.rint(equal / 1e-12)) == 1 and np.ptp(places(equal, 1.0)) == 0
    assert places(np.empty((0, 3)), 1.0).shape == (0, 3)
