"""Whether a difference is negligible or unmeasured: a region of practical equivalence, and the verdict in one word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spectra_exp.measure.base import Direction

ALPHA = 0.05
Verdict = Literal["better", "worse", "lower", "higher", "equivalent", "undecided", ""]


@dataclass(frozen=True)
class Chances:
    """Probabilities that the true difference lies below, within and above the region; they sum to one."""

    below: float
    within: float
    above: float


def chances(difference: float, error: float, df: float, margin: float) -> Chances:
    """Of a difference with its standard error, by the flat prior: Student's t at the difference, scaled by the error.

    *Source:* the Bayesian t test of pairs (Benavoli et al. 2017) without the correlation that cross-validation adds.
    """
    from scipy.special import stdtr

    below = float(stdtr(df, (-margin - difference) / error))
    above = float(stdtr(df, (difference - margin) / error))
    return Chances(below, max(0.0, 1 - below - above), above)


def verdict(
    interval_90: tuple[float | None, float | None],
    corrected_p: float | None,
    margin: float | None,
    direction: Direction,
) -> Verdict:
    """Equivalent where the 90 % interval lies within ±margin; else the direction where corrected p is below 0.05.

    Then the 95 % interval that goes with the correction leaves out zero. Else undecided; empty without a test.
    `direction`: which way is better; without one the words are lower and higher.
    """
    low, high = interval_90
    if low is None or high is None or corrected_p is None:
        return ""
    if margin is not None and -margin < low and high < margin:
        return "equivalent"
    if corrected_p >= ALPHA:
        return "undecided"
    below = low + high < 0
    if direction == "none":
        return "lower" if below else "higher"
    return "better" if below == (direction == "lower") else "worse"
