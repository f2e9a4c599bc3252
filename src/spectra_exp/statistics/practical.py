"""Better, equivalent, worse or undecided: a difference beside its region of practical equivalence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from spectra_exp.statistics.intervals import ALPHA

Word = Literal["better", "equivalent", "worse", "undecided", "lower", "higher"]


@dataclass(frozen=True)
class Region:
    """Probabilities that the true difference lies below, within and above −margin..margin; they sum to 1."""

    below: float
    within: float
    above: float


def region_probabilities(difference: float, se: float, df: float, margin: float) -> Region:
    """Where the true difference lies, given what was seen and the flat prior: t with `df` at `difference`, scale `se`.

    For n pairs `se` is s/√n and `df` n − 1. Raises ValueError for a margin or a scale that is not above zero.
    *Source:* Bayesian t with prior p(µ, σ) ∝ 1/σ (Gelman et al. 2013, section 3.2); the region by Kruschke 2018. Not
    the correlated test of cross-validation, whose folds share data as seeds do not.
    """
    for name, value in (("margin", margin), ("standard error", se)):
        if not 0 < value < math.inf:
            raise ValueError(f"the {name} is {value}; it must be finite and above zero")
    # Under the flat prior the chance that it lies beyond a bound is the p of the test that it does not.
    below, above = below_p(-difference, se, df, margin), below_p(difference, se, df, margin)
    return Region(below, max(0.0, 1.0 - below - above), above)


def below_p(difference: float, se: float, df: float, bound: float) -> float:
    """p of the one-sided t test that the true difference lies below `bound`."""
    from scipy.special import stdtr

    return float(stdtr(df, (difference - bound) / se))


def equivalent_p(difference: float, se: float, df: float, margin: float) -> float:
    """p of the two one-sided tests that the true difference lies within −margin..margin: the larger of the two.

    Below 0.05 the 90 % interval lies within. *Source:* Schuirmann 1987.
    """
    return below_p(abs(difference), se, df, margin)


def non_inferior_p(difference: float, se: float, df: float, margin: float, better: Literal["lower", "higher"]) -> float:
    """p of the one-sided test that the true difference is worse by less than `margin`; better: which values are."""
    return below_p(difference if better == "lower" else -difference, se, df, margin)


def word(
    difference: float, p: float | None, equivalent_p: float | None, better: Literal["lower", "higher", "none"]
) -> Word:
    """What may be said of a − b: equivalence is looked for first, because a negligible difference can be certain.

    p: of the test that there is no difference, corrected for the tests made with it; equivalent_p: of the two one-sided
    tests against the margin (below 0.05 the 90 % interval lies within it), None without one; better: which values are;
    where none are, a difference is lower or higher.
    """
    if equivalent_p is not None and equivalent_p < ALPHA:
        return "equivalent"
    if p is None or p >= ALPHA or difference == 0:
        return "undecided"
    side: Word = "lower" if difference < 0 else "higher"
    return side if better == "none" else "better" if side == better else "worse"
