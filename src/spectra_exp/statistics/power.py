"""How many seeds find a difference: the power of the t test of pairs, and how well a spread is known."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectra_exp.statistics.comparison import MIN_SEEDS, NO_SPREAD, NOISE, TOO_FEW, largest
from spectra_exp.statistics.intervals import ALPHA, LEVEL

# More seeds than this are said to be too many.
MOST = 100_000


@dataclass(frozen=True)
class Spread:
    """Standard deviation of a pair's difference, on `df` degrees of freedom, with its upper 95 % confidence limit.

    Both are None where `note` says why.
    """

    sd: float | None
    upper: float | None
    df: int
    note: str = ""


def spread_of(groups: Sequence[Sequence[float]], scale: float = 0.0) -> Spread:
    """The spread that several comparisons share, from the differences of each, whose means may differ.

    Comparisons of one study have a row in common, so that their pairs are no new seeds: the degrees of freedom are
    those of the longest alone. scale: the largest value that the differences were computed from, for what is rounding.
    *Source:* mean square within groups; the limit by the chi-squared distribution of a variance.
    """
    from scipy.special import chdtri

    used = [np.asarray(group, dtype=np.float64) for group in groups if len(group) > 1]
    if not used:
        return Spread(None, None, 0, TOO_FEW.replace(str(MIN_SEEDS), "2"))
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in used)
    sd = math.sqrt(squares / sum(len(group) - 1 for group in used))
    df = max(len(group) for group in used) - 1
    if sd <= NOISE * max(scale, *map(largest, used)):
        return Spread(None, None, df, NO_SPREAD)
    return Spread(sd, sd * math.sqrt(df / float(chdtri(df, LEVEL))), df)


def power_of(effect: float, seeds: int, alpha: float = ALPHA) -> float:
    """Chance that the two-sided t test of `seeds` pairs finds a true difference of `effect` standard deviations.

    Findings of the wrong sign are not counted, as in `detectable_difference`.
    *Source:* noncentral t distribution (Cohen 1988).
    """
    from scipy.special import nctdtr, stdtrit

    df = seeds - 1
    missed = float(nctdtr(df, abs(effect) * math.sqrt(seeds), float(stdtrit(df, 1 - alpha / 2))))
    # No number where it is too small to be summed up.
    return 1.0 if math.isnan(missed) else 1 - missed


def seeds_needed(difference: float, sd: float, power: float, alpha: float = ALPHA) -> int | None:
    """The fewest pairs, three at least, whose test finds `difference` with this power; None for more than `MOST`."""
    counts = range(MIN_SEEDS, MOST + 1)
    place = bisect_left(counts, True, key=lambda seeds: power_of(difference / sd, seeds, alpha) >= power)
    return counts[place] if place < len(counts) else None
