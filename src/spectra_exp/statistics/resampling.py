"""Intervals over whole documents or pairs, whose tokens are not independent of each other, and p-values by chance.

Letters: N tokens, G documents or pairs, R resamples, X anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from spectra_exp.statistics.intervals import LEVEL, Interval

RESAMPLES = 2000
# Fewer documents give no interval.
FEWEST = 3
# Fewer draws by chance give a mean, but no p-value worth printing.
LEAST_DRAWS = 19


@lru_cache(maxsize=8)
def resamples(count: int, seed: int) -> np.ndarray:
    """float64 [R, G], read-only: how often each of `count` documents is drawn, with replacement, in each resample."""
    drawn_RG = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    drawn_RG.flags.writeable = False
    return drawn_RG


def percentile_interval(point: float, drawn_R: np.ndarray, count: int) -> Interval | None:
    """`point` with the 95 % percentile interval of its resampled values; None when it is not finite.

    No bounds for fewer than three documents, or where a resample in ten has no value.
    *Source:* Efron 1979, the percentile bootstrap, with documents as the units.
    """
    if not np.isfinite(point):
        return None
    finite = drawn_R[np.isfinite(drawn_R)]
    if count < FEWEST or len(finite) < 0.9 * len(drawn_R):
        return Interval(count, float(point), None, None)
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(count, float(point), float(low), float(high))


def mean_over_documents(values_N: np.ndarray, documents_N: np.ndarray, seed: int) -> Interval | None:
    """The mean over tokens; NaN values do not count. None without a finite value."""
    sums_G, counts_G = _sums(values_N, np.isfinite(values_N), documents_N)
    point = _ratio(sums_G.sum(), counts_G.sum())
    drawn_RG = resamples(len(sums_G), seed) if len(sums_G) else np.zeros((0, 0))
    return percentile_interval(float(point), _ratio(drawn_RG @ sums_G, drawn_RG @ counts_G), len(sums_G))


def difference_over_documents(
    values_N: np.ndarray, marked_N: np.ndarray, documents_N: np.ndarray, seed: int
) -> Interval | None:
    """The mean over marked tokens less that over the rest; None where either side has no finite value.

    A resample draws documents with both sides of theirs, so that what a document's tokens share cancels.
    """
    known_N = np.isfinite(values_N)
    marked_N = marked_N.astype(bool)
    # One numbering of documents for both sides.
    found, place_N = np.unique(documents_N[known_N], return_inverse=True)
    sides = []
    for side_N in (marked_N[known_N], ~marked_N[known_N]):
        sums_G = np.bincount(place_N[side_N], weights=values_N[known_N][side_N], minlength=len(found))
        sides.append((sums_G, np.bincount(place_N[side_N], minlength=len(found))))
    if any(counts_G.sum() == 0 for _, counts_G in sides):
        return None
    drawn_RG = resamples(len(found), seed)
    point = np.subtract(*(_ratio(sums_G.sum(), counts_G.sum()) for sums_G, counts_G in sides))
    drawn_R = np.subtract(*(_ratio(drawn_RG @ sums_G, drawn_RG @ counts_G) for sums_G, counts_G in sides))
    return percentile_interval(float(point), drawn_R, len(found))


def curve_over_pairs(curves_GX: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper bound [X] of curves, one per pair; bounds are NaN for fewer than three pairs."""
    mean_X = curves_GX.mean(axis=0)
    if len(curves_GX) < FEWEST:
        return mean_X, np.full_like(mean_X, np.nan), np.full_like(mean_X, np.nan)
    drawn_RX = resamples(len(curves_GX), seed) @ curves_GX / len(curves_GX)
    low_X, high_X = np.quantile(drawn_RX, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return mean_X, low_X, high_X


def against_chance(value: float | None, drawn: Iterable[float | None]) -> dict[str, float | None]:
    """The value, the mean and the 95 % range of chance, and the one-sided p that chance gives as much or more.

    p = (1 + draws at least as large) / (1 + draws), so that it is never 0. *Source:* Phipson and Smyth 2010. None for
    what cannot be said; draws that are None do not count.
    """
    known = np.array([draw for draw in drawn if draw is not None])
    found: dict[str, float | None] = dict.fromkeys(("value", "chance", "chance_low", "chance_high", "p"))
    found |= {"value": value, "draws": len(known)}
    if value is None or not len(known):
        return found
    low, high = np.quantile(known, [0.025, 0.975])
    found |= {"chance": float(known.mean()), "chance_low": float(low), "chance_high": float(high)}
    if len(known) >= LEAST_DRAWS:
        # Rounding must not decide between equal figures.
        found["p"] = (1 + int((known >= value - 1e-12).sum())) / (1 + len(known))
    return found


def columns(found: Interval | None, name: str) -> dict[str, float | None]:
    """The columns of an interval in a table: `name`, `name`_low, `name`_high; empty cells for what is not known."""
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _sums(values_N: np.ndarray, counted_N: np.ndarray, documents_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the counted values of each document that has any."""
    _, place_N = np.unique(documents_N[counted_N], return_inverse=True)
    return np.bincount(place_N, weights=values_N[counted_N]), np.bincount(place_N)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, np.nan)
