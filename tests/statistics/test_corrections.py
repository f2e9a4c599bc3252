from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from spectra_exp.statistics.corrections import benjamini_hochberg, holm, stars

_p = st.floats(0.0, 1.0)
_family = st.lists(_p, min_size=1, max_size=20)
METHODS = [(holm, "holm"), (benjamini_hochberg, "fdr_bh")]


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, which may not fall again: 0.06.
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})
    assert list(found) == ["c", "a", "d", "b"]
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4/1, 4/2, 4/3, 4/4: 0.04, 0.04, 0.04, 0.5.
    found = benjamini_hochberg({"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.5})
    assert found == pytest.approx({"a": 0.04, "b": 0.04, "c": 0.04, "d": 0.5})


@pytest.mark.parametrize(("correct", "name"), METHODS)
@settings(max_examples=15, deadline=None)  # statsmodels takes 0.1 s for Holm
@given(family=_family)
def test_equals_statsmodels(correct, name: str, family: list[float]) -> None:
    found = correct(dict(enumerate(family)))
    np.testing.assert_allclose(list(found.values()), multipletests(family, method=name)[1], rtol=1e-12)


@pytest.mark.parametrize(("correct", "name"), METHODS)
@settings(deadline=None)
@given(family=_family)
def test_keeps_the_order_and_is_never_below_the_raw_p(correct, name: str, family: list[float]) -> None:
    raw = np.array(family)
    found = np.array(list(correct(dict(enumerate(family))).values()))
    assert (found >= raw).all() and (found <= 1).all()
    assert (np.diff(found[np.argsort(raw, kind="stable")]) >= 0).all()


@settings(deadline=None)
@given(family=_family)
def test_holm_between_the_other_two(family: list[float]) -> None:
    """Never below Benjamini-Hochberg (so the two are not mixed up), never above Bonferroni."""
    tests = dict(enumerate(family))
    found, weaker = holm(tests), benjamini_hochberg(tests)
    for key, p in tests.items():
        assert weaker[key] <= found[key] + 1e-12 and found[key] <= min(1.0, p * len(family))


@pytest.mark.parametrize(("correct", "name"), METHODS)
@settings(deadline=None)
@given(family=st.lists(st.none() | st.just(math.nan) | _p, max_size=12))
def test_tests_without_a_p_do_not_count(correct, name: str, family) -> None:
    tests = dict(enumerate(family))
    tested = {key: p for key, p in tests.items() if p is not None and not math.isnan(p)}
    found = correct(tests)
    assert list(found) == list(tests)
    assert {key: p for key, p in found.items() if p is not None} == correct(tested)


@pytest.mark.parametrize(("correct", "name"), METHODS)
@pytest.mark.parametrize("bad", [-0.1, 1.1, math.inf])
def test_refuses_what_is_no_p(correct, name: str, bad: float) -> None:
    with pytest.raises(ValueError, match="0..1"):
        correct({"a": bad})


def test_stars() -> None:
    marks = {0.0: "***", 0.000999: "***", 0.001: "**", 0.00999: "**", 0.01: "*", 0.0499: "*", 0.05: "", 1.0: ""}
    assert {p: stars(p) for p in marks} == marks
    assert stars(None) == stars(math.nan) == ""
