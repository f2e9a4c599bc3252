"""Tests against a margin: that two arms are equal but for it, or that one is not worse by as much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spectra_exp.statistics.estimate import Estimate, Method, estimate

LEVEL = 0.90  # the interval that goes with two one-sided tests at 0.05 leaves 0.05 on each side


@dataclass(frozen=True)
class MarginTest:
    """A test of a − b against a margin; figures are None where no test can be made, and `note` says why.

    n_a, n_b: finite values by arm; n: pairs. ci_low, ci_high: the 90 % interval, which lies within the margin when
    p < 0.05 (for non-inferiority: does not reach it on the worse side). p: small says that the margin holds,
    large says nothing.
    """

    n_a: int
    n_b: int
    n: int
    difference: float | None
    margin: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    method: Method
    note: str


def tost(a: Mapping[int, float | None], b: Mapping[int, float | None], margin: float) -> MarginTest:
    """Equivalence of two arms (seed → value): |true a − b| < `margin`, in the metric's unit.

    p is the larger one of the two one-sided tests, paired or Welch's as `estimate` says. Raises ValueError for a
    margin that is not above zero. *Source:* Schuirmann 1987.
    """
    found = _estimate(a, b, margin)
    if found.error is None:
        return _result(found, margin, None)
    return _result(found, margin, max(_p_above(found, -margin), _p_below(found, margin)))


def non_inferior(
    a: Mapping[int, float | None],
    b: Mapping[int, float | None],
    margin: float,
    direction: Literal["lower", "higher"],
) -> MarginTest:
    """Non-inferiority of arm a to reference b: its true mean is worse by less than `margin`.

    direction: which values are better, so lower tests a − b < margin and higher tests a − b > −margin, one-sided.
    Raises ValueError for another direction, or a margin that is not above zero.
    """
    if direction not in ("lower", "higher"):
        raise ValueError(f"direction is '{direction}'; it must be lower or higher")
    found = _estimate(a, b, margin)
    if found.error is None:
        return _result(found, margin, None)
    return _result(found, margin, _p_below(found, margin) if direction == "lower" else _p_above(found, -margin))


def _estimate(a: Mapping[int, float | None], b: Mapping[int, float | None], margin: float) -> Estimate:
    if not 0 < margin < math.inf:
        raise ValueError(f"the margin is {margin}; it must be finite and above zero")
    return estimate(a, b)


def _p_below(found: Estimate, bound: float) -> float:
    """p of the one-sided test that the true difference lies below `bound`."""
    from scipy.special import stdtr

    return float(stdtr(found.df, (found.difference - bound) / found.error))


def _p_above(found: Estimate, bound: float) -> float:
    from scipy.special import stdtr

    return float(stdtr(found.df, (bound - found.difference) / found.error))


def _result(found: Estimate, margin: float, p: float | None) -> MarginTest:
    from scipy.special import stdtrit

    low = high = None
    if found.error is not None:
        half = float(stdtrit(found.df, (1 + LEVEL) / 2)) * found.error
        low, high = found.difference - half, found.difference + half
    sizes = len(found.values_a), len(found.values_b), len(found.differences)
    return MarginTest(*sizes, found.difference, margin, low, high, p, found.method, found.note)
