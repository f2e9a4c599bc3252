"""The mean over seeds with its interval: the numbers only; how they are shown is the tables' business."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Of intervals, and of tests.
LEVEL, ALPHA = 0.95, 0.05


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds; `low` and `high` bound the true mean at `LEVEL`, None where n < 2 allows no bound."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half the interval's length, or None where there is no interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def mean_interval(values: Iterable[float | None]) -> Interval | None:
    """Student's t interval of the mean, two-sided at 95 %; None when no value is finite.

    One value per seed; missing and non-finite ones do not count. With one seed there is a mean and no interval.
    *Source:* mean ± t(0.975, n − 1) · s / √n, s the sample standard deviation.
    """
    from scipy.special import stdtrit

    finite = np.array([v for v in values if v is not None and math.isfinite(v)], dtype=np.float64)
    n = len(finite)
    if n == 0:
        return None
    mean = float(finite.mean())
    if n == 1:
        return Interval(1, mean, None, None)
    with np.errstate(over="ignore"):
        half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * float(finite.std(ddof=1)) / math.sqrt(n)
    if not math.isfinite(half):
        # Squares of very large values overflow.
        return Interval(n, mean, None, None)
    return Interval(n, mean, mean - half, mean + half)
