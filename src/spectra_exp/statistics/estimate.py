"""The difference between two arms over seeds with its standard error: what every test of two arms begins with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

NOISE = 1e-12  # values closer than this share of the largest one are equal but for rounding
MIN_SEEDS = 3  # fewer give no p-value
TOO_FEW = f"n<{MIN_SEEDS}"
NO_SPREAD = "zero variance"

Method = Literal["paired t", "Welch's t", ""]
Values = Mapping[int, float | None]  # seed → value of one arm


@dataclass(frozen=True)
class Estimate:
    """The mean difference a − b, and where a test can be made its standard error and degrees of freedom.

    `values_a`, `values_b` and `differences` (of the seeds that both have) are finite and in the order of seeds.
    Without a test `method` is empty, `error` and `df` are None, and `note` says why.
    """

    values_a: np.ndarray
    values_b: np.ndarray
    differences: np.ndarray
    difference: float | None
    error: float | None
    df: float | None
    method: Method
    note: str

    @property
    def scale(self) -> float:
        """The largest absolute value in either arm, which rounding noise is judged by; 0 without values."""
        return max(largest(self.values_a), largest(self.values_b))


def estimate(a: Values, b: Values) -> Estimate:
    """The difference between arms `a` and `b`, paired over seeds when both have the same ones, else Welch's.

    Missing and non-finite values are left out first, and counted in the note, so an arm that lacks one value of
    five makes the pairs incomplete. Then
    - the same seeds in both: paired, df = n − 1;
    - other seeds in one than in the other: Welch's over all values of each arm, although some seeds may be
      common; the note says how many;
    - fewer than `MIN_SEEDS` values in an arm, or no spread but rounding noise: no test.
    *Source:* Student's paired and Welch's unequal-variances t statistic.
    """
    finite_a, finite_b = _finite(a), _finite(b)
    common = sorted(finite_a.keys() & finite_b.keys())
    values_a, values_b = _in_order(finite_a), _in_order(finite_b)
    differences = np.array([finite_a[seed] - finite_b[seed] for seed in common], dtype=np.float64)
    paired = finite_a.keys() == finite_b.keys()
    # The mean of the differences rounds less than the difference of the means, which is all that other seeds allow.
    difference = _mean(differences) if paired else _difference(values_a, values_b)
    noise = NOISE * max(largest(values_a), largest(values_b))
    lost = len(a) + len(b) - len(values_a) - len(values_b)
    left_out = f"{lost} value{'s' * (lost > 1)} not finite" if lost else ""

    def untested(reason: str) -> Estimate:
        return Estimate(values_a, values_b, differences, difference, None, None, "", join_notes(reason, left_out))

    if min(len(values_a), len(values_b)) < MIN_SEEDS:
        return untested(TOO_FEW)
    if paired:
        n, spread = len(differences), float(differences.std(ddof=1))
        if spread <= noise:
            return untested(NO_SPREAD)
        error = spread / math.sqrt(n)
        return Estimate(values_a, values_b, differences, difference, error, n - 1.0, "paired t", left_out)
    spreads = np.array([values_a.std(ddof=1), values_b.std(ddof=1)])
    if spreads.max() <= noise:
        return untested(NO_SPREAD)
    sizes = np.array([len(values_a), len(values_b)])
    variances = spreads**2 / sizes
    df = 1 / float(((variances / variances.sum()) ** 2 / (sizes - 1)).sum())
    seeds = f"seeds differ: {sizes[0]} and {sizes[1]}, {len(common)} common"
    error = math.sqrt(variances.sum())
    note = join_notes(seeds, left_out)
    return Estimate(values_a, values_b, differences, difference, error, df, "Welch's t", note)


def places(values: np.ndarray, scale: float) -> np.ndarray:
    """Each value's place (0, 1, ...) in increasing order, the same for values that are equal but for rounding.

    values: of any shape, which the result has too; scale: the largest number that they were computed from.
    """
    order = np.argsort(values, axis=None)
    ordered = values.ravel()[order]
    found = np.empty(values.size, dtype=np.int64)
    found[order] = np.cumsum(np.diff(ordered, prepend=ordered[:1]) > NOISE * scale)
    return found.reshape(values.shape)


def largest(values: np.ndarray) -> float:
    """The largest absolute value; 0 for none."""
    return float(np.abs(values).max(initial=0.0))


def join_notes(*notes: str) -> str:
    """The notes that are not empty, with semicolons between."""
    return "; ".join(note for note in notes if note)


def _finite(arm: Values) -> dict[int, float]:
    return {seed: float(v) for seed, v in arm.items() if v is not None and math.isfinite(v)}


def _in_order(arm: dict[int, float]) -> np.ndarray:
    return np.array([arm[seed] for seed in sorted(arm)], dtype=np.float64)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _difference(values_a: np.ndarray, values_b: np.ndarray) -> float | None:
    mean_a, mean_b = _mean(values_a), _mean(values_b)
    return None if mean_a is None or mean_b is None else mean_a - mean_b
