from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_exp.statistics.pareto import pareto_front

# Few values, so that ties and equal points are common.
_objective = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, None, math.nan, math.inf])
_points = st.lists(st.tuples(_objective, _objective, _objective), max_size=12)
_directions = st.tuples(*[st.sampled_from(["lower", "higher"])] * 3)


def _betters(one, other, directions) -> bool:
    """By the definition: as good in every objective and better in one."""
    signs = [1 if direction == "lower" else -1 for direction in directions]
    gaps = [sign * (a - b) for sign, a, b in zip(signs, one, other, strict=True)]
    return all(gap <= 0 for gap in gaps) and any(gap < 0 for gap in gaps)


def test_by_hand() -> None:
    # (CV, loss), both lower: the fourth is worse in loss than the first at the same CV, the fifth than the second
    # in both; the two equal ones stand together.
    points = [(0.1, 3.0), (0.2, 2.9), (0.3, 2.8), (0.1, 3.1), (0.25, 2.95), (0.3, 2.8)]
    assert pareto_front(points, ["lower", "lower"]) == [True, True, True, False, False, True]
    assert pareto_front(points, ["higher", "lower"]) == [False, False, True, False, False, True]


@settings(deadline=None)
@given(_points, _directions)
def test_equals_brute_force(points, directions) -> None:
    known = [p for p in points if all(v is not None and math.isfinite(v) for v in p)]
    expected = [p in known and not any(_betters(other, p, directions) for other in known) for p in points]
    found = pareto_front(points, directions)
    assert found == expected
    assert any(found) == bool(known)


def test_a_diverged_run_pushes_nothing_off() -> None:
    points = [(1.0, -math.inf), (2.0, 3.0), (math.nan, 1.0), (None, 0.0)]
    assert pareto_front(points, ["lower", "lower"]) == [False, True, False, False]
    assert pareto_front([], ["lower"]) == []


def test_refuses_what_it_cannot_rank() -> None:
    for directions in (["none", "lower"], []):
        with pytest.raises(ValueError, match="lower or higher"):
            pareto_front([(1.0, 2.0)], directions)
    with pytest.raises(ValueError, match="2 objectives"):
        pareto_front([(1.0, 2.0), (1.0,)], ["lower", "lower"])
