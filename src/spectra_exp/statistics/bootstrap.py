"""The mean with an interval by resampling, for many values that are not normal, such as those of documents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from spectra_exp.statistics.estimate import MIN_SEEDS, NOISE, largest
from spectra_exp.statistics.mean import LEVEL, Interval


def bootstrap_interval(
    values: Iterable[float | None],
    rng: np.random.Generator,
    method: Literal["percentile", "BCa"] = "BCa",
    resamples: int = 9999,
) -> Interval | None:
    """The mean's two-sided 95 % bootstrap interval; None when no value is finite, no bounds for fewer than three.

    values: independent ones; missing and non-finite ones do not count. Over a few seeds it is too narrow (five
    seeds: it holds the true mean 83 % of the time), so seeds take `mean_interval`.
    *Source:* Efron 1987 (BCa), by scipy.stats.bootstrap.
    """
    from scipy.stats import bootstrap

    finite = np.array([v for v in values if v is not None and math.isfinite(v)], dtype=np.float64)
    n = len(finite)
    if n == 0:
        return None
    mean = float(finite.mean())
    if n < MIN_SEEDS:
        return Interval(n, mean, None, None)
    if np.ptp(finite) <= NOISE * largest(finite):
        return Interval(n, mean, mean, mean)
    found = bootstrap(
        (finite,), np.mean, n_resamples=resamples, confidence_level=LEVEL, method=method, rng=rng
    ).confidence_interval
    return Interval(n, mean, float(found.low), float(found.high))
