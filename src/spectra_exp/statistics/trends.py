"""Trends over ordered conditions, as model sizes or temperatures.

Letters: N seeds, K conditions. A seed with a missing or non-finite value is left out whole, and counted in the note.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectra_exp.statistics.comparison import MIN_SEEDS, NO_SPREAD, NOISE, TOO_FEW, join_notes, largest, places
from spectra_exp.statistics.intervals import LEVEL

MIN_CONDITIONS = 3
TOO_SHORT = f"fewer than {MIN_CONDITIONS} conditions"
EXACT_UP_TO = 8  # points whose orders are all tried: 8! = 40,320


@dataclass(frozen=True)
class Trend:
    """A rank statistic over `n` seeds (or points) with its p-value, both None where `note` says why."""

    n: int
    statistic: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Slope:
    """The mean over `n` seeds of each one's slope, with its 95 % interval and two-sided t test.

    slope: per unit of the covariate, None without a seed or a slope; the rest None where `note` says why.
    """

    n: int
    slope: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    t: float | None = None
    df: int | None = None
    p: float | None = None
    note: str = ""


def page_trend(values_NK: Sequence[Sequence[float | None]] | np.ndarray) -> Trend:
    """Page's L, and the one-sided p that values rise over the conditions, given in their predicted order.

    [N, K] with K ≥ 3; for a predicted fall reverse the columns. Exact up to 8 conditions and 20 seeds (12 from
    four conditions on), normal beyond; with ties slightly too large. *Source:* Page 1963.
    """
    from scipy.stats import page_trend_test

    finite_NK, left_out = _complete_seeds(values_NK)
    places_NK = places(finite_NK, largest(finite_NK))
    reason = _too_small(finite_NK) or ("" if np.ptp(places_NK, axis=1).any() else NO_SPREAD)
    if reason:
        return Trend(len(finite_NK), note=join_notes(reason, left_out))
    found = page_trend_test(places_NK)
    return Trend(len(finite_NK), float(found.statistic), min(1.0, float(found.pvalue)), left_out)


def spearman(x: Sequence[float | None], y: Sequence[float | None]) -> Trend:
    """Spearman's rank correlation of paired points with its two-sided p; its sign is the direction.

    Give one point per condition (the mean over seeds): runs of one seed are not independent points. Exact, by all
    orders, up to `EXACT_UP_TO` points, beyond by Student's t. *Source:* Spearman 1904.
    """
    from scipy.stats import permutation_test, rankdata, spearmanr

    points_N2, left_out = _complete_seeds(np.array([x, y], dtype=np.float64).T, "point")
    n = len(points_N2)
    ranks = [rankdata(places(column, largest(column))) for column in points_N2.T]
    reason = TOO_FEW if n < MIN_SEEDS else NO_SPREAD if any(np.ptp(r) == 0 for r in ranks) else ""
    if reason:
        return Trend(n, note=join_notes(reason, left_out))
    found = spearmanr(*ranks)
    p = max(float(found.pvalue), 2 / math.factorial(n))  # no order of n points is rarer
    if n <= EXACT_UP_TO:
        centred = ranks[1] - ranks[1].mean()  # with the other ranks fixed, the correlation goes with this product
        p = permutation_test(
            (ranks[0],),
            lambda order, axis: (order * centred).sum(axis=axis),
            permutation_type="pairings",
            vectorized=True,
            n_resamples=math.inf,
        ).pvalue
    return Trend(n, float(found.statistic), float(p), left_out)


def slope_over(gains_NK: Sequence[Sequence[float | None]] | np.ndarray, covariate_K: Sequence[float]) -> Slope:
    """How a paired gain changes with a covariate, as the logarithm of the model's size: a line for every seed.

    gains_NK: [N, K] with K ≥ 3 distinct values of the covariate (two are a plain comparison). Each seed's
    least-squares slope is one observation, so what the conditions of a seed share does not count as agreement.
    Raises ValueError for a covariate that is not finite or not of length K. *Source:* ours.
    """
    from scipy.stats import ttest_1samp

    finite_NK, left_out = _complete_seeds(gains_NK)
    covariate = np.asarray(covariate_K, dtype=np.float64)
    if not np.isfinite(covariate).all() or any(len(gains) != len(covariate) for gains in gains_NK):
        raise ValueError(f"the covariate is {covariate.tolist()}; it needs a finite value per condition")
    n = len(finite_NK)
    if n == 0 or len(np.unique(covariate)) < MIN_CONDITIONS:
        reason = TOO_SHORT if n >= MIN_SEEDS else TOO_FEW
        return Slope(n, note=join_notes(reason, left_out))
    weights_K = (covariate - covariate.mean()) / ((covariate - covariate.mean()) ** 2).sum()
    slopes_N = finite_NK @ weights_K
    slope = float(slopes_N.mean())
    spread = float(slopes_N.std(ddof=1)) if n >= MIN_SEEDS else 0.0
    noise = NOISE * largest(finite_NK) * float(np.abs(weights_K).sum())
    reason = TOO_FEW if n < MIN_SEEDS else NO_SPREAD if spread <= noise else ""
    if reason:
        return Slope(n, slope, note=join_notes(reason, left_out))
    test = ttest_1samp(slopes_N, 0.0)
    low, high = test.confidence_interval(LEVEL)
    return Slope(n, slope, float(low), float(high), float(test.statistic), n - 1, float(test.pvalue), left_out)


def _complete_seeds(
    values: Sequence[Sequence[float | None]] | np.ndarray, unit: str = "seed"
) -> tuple[np.ndarray, str]:
    """The rows [N, K] that are finite throughout, and a note on how many others there were."""
    rows_NK = np.array(values, dtype=np.float64)
    if len(rows_NK) == 0:
        return np.empty((0, 0)), ""
    if rows_NK.ndim != 2:
        raise ValueError(f"values have the shape {rows_NK.shape}; a row per {unit} is needed")
    finite_N = np.isfinite(rows_NK).all(axis=1)
    lost = int((~finite_N).sum())
    return rows_NK[finite_N], f"{lost} {unit}{'s' * (lost > 1)} not finite" if lost else ""


def _too_small(values_NK: np.ndarray) -> str:
    if len(values_NK) < MIN_SEEDS:
        return TOO_FEW
    return TOO_SHORT if values_NK.shape[1] < MIN_CONDITIONS else ""
