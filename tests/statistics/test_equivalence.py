from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spectra_exp.statistics.comparison import compare, difference_of
from spectra_exp.statistics.practical import equivalent_p, non_inferior_p

_value = st.integers(-5000, 5000).map(lambda v: v / 1000)
_arms = st.lists(st.tuples(_value, _value), min_size=3, max_size=12)


def _seeds(values) -> dict[int, float]:
    return dict(enumerate(values))


def _equivalent(a, b, margin: float) -> float:
    return equivalent_p(*compare(a, b).estimate, margin)


def _non_inferior(a, b, margin: float, better) -> float:
    return non_inferior_p(*compare(a, b).estimate, margin, better)


def test_by_hand() -> None:
    # Differences 0, 0.01, 0.02: mean 0.01, s = 0.01, error 0.01/√3. Against a margin of 0.03 the near side has
    # t = (0.01 - 0.03)/error = -2√3 at df = 2, where the one-sided p is half of 1 - 2√3/√14 = 0.07418; the far side,
    # t = (0.01 + 0.03)/error = 4√3, has half of 1 - 4√3/√50 = 0.0202. The worse one counts.
    near, far = (1 - 2 * math.sqrt(3) / math.sqrt(14)) / 2, (1 - 4 * math.sqrt(3) / math.sqrt(50)) / 2
    a, b = {0: 3.0, 1: 3.01, 2: 3.02}, {0: 3.0, 1: 3.0, 2: 3.0}
    assert _equivalent(a, b, 0.03) == pytest.approx(near, rel=1e-9) and far < near
    assert _non_inferior(a, b, 0.03, "lower") == pytest.approx(near, rel=1e-9)
    assert _non_inferior(a, b, 0.03, "higher") == pytest.approx(far, rel=1e-9)


@settings(deadline=None)
@given(_arms, st.sampled_from([0.01, 0.3, 4.0]))
def test_equals_scipys_one_sided_tests(arms, margin: float) -> None:
    a, b = np.array(arms).T
    assume(np.std(a - b) > 1e-6)
    found = _equivalent(_seeds(a), _seeds(b), margin)
    lower = scipy.stats.ttest_rel(a - margin, b, alternative="less").pvalue
    higher = scipy.stats.ttest_rel(a + margin, b, alternative="greater").pvalue
    assert _non_inferior(_seeds(a), _seeds(b), margin, "lower") == pytest.approx(lower, rel=1e-7, abs=1e-12)
    assert _non_inferior(_seeds(a), _seeds(b), margin, "higher") == pytest.approx(higher, rel=1e-7, abs=1e-12)
    assert found == pytest.approx(max(lower, higher), rel=1e-7, abs=1e-12)
    assert _equivalent(_seeds(b), _seeds(a), margin) == found


def test_other_seeds_take_welch() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    arms = _seeds(a), {10 + s: v for s, v in enumerate(b)}
    assert compare(*arms).method == "Welch's t"
    lower = scipy.stats.ttest_ind(a - 0.5, b, equal_var=False, alternative="less").pvalue
    higher = scipy.stats.ttest_ind(a + 0.5, b, equal_var=False, alternative="greater").pvalue
    assert _equivalent(*arms, 0.5) == pytest.approx(max(lower, higher))


@settings(deadline=None)
@given(_arms, st.sampled_from([0.05, 0.5, 4.0]))
def test_interval_says_what_the_tests_say(arms, margin: float) -> None:
    a, b = (_seeds(column) for column in np.array(arms).T)
    full = compare(a, b)
    assume(full.estimate is not None and abs(_equivalent(a, b, margin) - 0.05) > 1e-9)
    low, high = difference_of(a, b).interval(0.9)
    assert (_equivalent(a, b, margin) < 0.05) == (-margin < low and high < margin)
    assert (_non_inferior(a, b, margin, "lower") < 0.05) == (high < margin)
    assert (_non_inferior(a, b, margin, "higher") < 0.05) == (-margin < low)
    assert full.ci_low < low < full.difference < high < full.ci_high


def test_no_difference_found_is_not_equivalence() -> None:
    rng = np.random.default_rng(0)
    b = rng.normal(3.0, 0.1, 5)
    a = b + rng.normal(0.0, 0.1, 5)
    assert compare(_seeds(a), _seeds(b)).p > 0.05 and _equivalent(_seeds(a), _seeds(b), 0.02) > 0.05
    assert _equivalent(_seeds(b + rng.normal(0.0, 0.002, 5)), _seeds(b), 0.02) < 0.001


def test_equivalence_at_the_edge_is_claimed_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    arms = rng.normal(3.0, 0.1, (2000, 1, 5)) + rng.normal(0.0, 0.001, (2000, 2, 5))
    arms[:, 0] += 0.02
    claims = [_equivalent(_seeds(a), _seeds(b), 0.02) < 0.05 for a, b in arms]
    assert np.mean(claims) == pytest.approx(0.05, abs=0.015)  # 3 standard errors


def test_no_test_without_three_seeds_or_spread() -> None:
    few = {0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.5}
    equal = {0: 1.1, 1: 2.1, 2: 3.1}, {0: 1.0, 1: 2.0, 2: 3.0}
    odd = {0: 1.0, 1: 2.0, 2: math.nan}, {0: 1.0, 1: 2.0, 2: 3.0}
    notes = "n<3", "zero variance", "n<3; 1 value not finite"
    for arms, note in zip((few, equal, odd), notes, strict=True):
        assert (compare(*arms).estimate, compare(*arms).note) == (None, note)
        assert difference_of(*arms).interval(0.9) == (None, None)
    assert compare(*equal).difference == pytest.approx(0.1)
