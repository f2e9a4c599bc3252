"""Tests against a margin: that two arms are equal but for it, or that one is not worse by as much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from spectra_exp.statistics.comparison import Difference, Method, Values, difference_of

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


def tost(a: Values, b: Values, margin: float) -> MarginTest:
    """Equivalence of two arms (seed → value): |true a − b| < `margin`, in the metric's unit.

    p is the larger one of the two one-sided tests, paired or Welch's as `difference_of` says. Raises ValueError for a
    margin that is not above zero. *Source:* Schuirmann 1987.
    """
    found, above, below = _one_sided(a, b, margin)
    return _result(found, margin, None if above is None or below is None else max(above, below))


def non_inferior(a: Values, b: Values, margin: float, direction: Literal["lower", "higher"]) -> MarginTest:
    """Non-inferiority of arm a to reference b: its true mean is worse by less than `margin`.

    direction: which values are better, so lower tests a − b < margin and higher tests a − b > −margin, one-sided.
    Raises ValueError for another direction, or a margin that is not above zero.
    """
    if direction not in ("lower", "higher"):
        raise ValueError(f"direction is '{direction}'; it must be lower or higher")
    found, above, below = _one_sided(a, b, margin)
    return _result(found, margin, below if direction == "lower" else above)


def _one_sided(a: Values, b: Values, margin: float) -> tuple[Difference, float | None, float | None]:
    """The difference, and p of the tests that it lies above −margin and below margin; None without a test."""
    from statsmodels.stats.weightstats import ttost_ind, ttost_paired

    if not 0 < margin < math.inf:
        raise ValueError(f"the margin is {margin}; it must be finite and above zero")
    found = difference_of(a, b)
    arms = found.values_a, found.values_b
    match found.method:
        case "paired t":
            _, above, below = ttost_paired(*arms, -margin, margin)
        case "Welch's t":
            _, above, below = ttost_ind(*arms, -margin, margin, usevar="unequal")
        case _:
            return found, None, None
    return found, float(above[1]), float(below[1])


def _result(found: Difference, margin: float, p: float | None) -> MarginTest:
    sizes = len(found.values_a), len(found.values_b), len(found.differences)
    return MarginTest(*sizes, found.difference, margin, *found.interval(LEVEL), p, found.method, found.note)
