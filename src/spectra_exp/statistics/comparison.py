"""Two arms compared over seeds: the t test of their difference, effect size, and what could have been found."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from spectra_exp.statistics.intervals import LEVEL

if TYPE_CHECKING:
    from scipy.stats._result_classes import TtestResult

NOISE = 1e-12  # values closer than this share of the largest one are equal but for rounding
MIN_SEEDS = 3  # fewer give no p-value
MIN_WILCOXON = 6  # with five differences the smallest two-sided p is 2/2⁵ = 0.0625
POWER = 0.8
TOO_FEW = f"n<{MIN_SEEDS}"
NO_SPREAD = "zero variance"

Method = Literal["paired t", "Welch's t", ""]
Values = Mapping[int, float | None]  # seed → value of one arm


@dataclass(frozen=True)
class Difference:
    """The mean difference a − b over seeds, and the t test that it is not zero, where one can be made.

    `values_a`, `values_b` and `differences` (of the seeds that both have) are finite and in the order of seeds.
    Without a test `test` is None, `method` is empty and `note` says why.
    """

    values_a: np.ndarray
    values_b: np.ndarray
    differences: np.ndarray
    difference: float | None
    test: TtestResult | None
    method: Method
    note: str

    @property
    def scale(self) -> float:
        """The largest absolute value in either arm, which rounding noise is judged by; 0 without values."""
        return max(largest(self.values_a), largest(self.values_b))

    def interval(self, level: float) -> tuple[float | None, float | None]:
        """Bounds of the true difference, two-sided at `level`; None without a test.

        An interval that leaves out zero is a significant test by another name, so one is not given without the other.
        """
        if self.test is None:
            return None, None
        low, high = self.test.confidence_interval(level)
        return float(low), float(high)


@dataclass(frozen=True)
class Sequential:
    """How seeds were added until the comparison was decided.

    looks: numbers of pairs that were looked at; max_seeds: of the last planned look; margin: half the region of
    equivalence, equivalent_p: of a difference of that or more; both None where no region is declared.
    """

    looks: tuple[int, ...]
    max_seeds: int
    margin: float | None
    equivalent_p: float | None


@dataclass(frozen=True)
class Comparison:
    """Arm a against arm b over seeds; a figure that does not exist is None, and `note` says why.

    n_a, n_b: finite values by arm; n: pairs, the seeds that both have (Welch's t does not use them).
    mean_a, mean_b: over all finite values of the arm; difference: a − b, in the metric's unit.
    ci_low, ci_high: bounds of the true difference at 95 %; t, df, p: of the two-sided test named by `method`.
    d_z: mean over standard deviation of the differences, of pairs only.
    wilcoxon_p: two-sided signed-rank test of the pairs, from `MIN_WILCOXON` differences other than zero.
    detectable: the smallest true difference that a test at 0.05 finds with 80 % power, given this n and spread.
    note: remarks with semicolons between, of "n<3", "zero variance", "seeds differ: 5 and 4, 4 common",
    "1 value not finite".
    se: standard error of the difference; None without a test.
    sequential: of a design with looks; p is then the sequential one, ci_low and ci_high the repeated interval, which
    hold at all looks together; wilcoxon_p and detectable, which a fixed number of seeds has, are None.
    """

    n_a: int
    n_b: int
    n: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    t: float | None
    df: float | None
    p: float | None
    d_z: float | None
    wilcoxon_p: float | None
    detectable: float | None
    method: Method
    note: str
    se: float | None = None
    sequential: Sequential | None = None

    @property
    def estimate(self) -> tuple[float, float, float] | None:
        """The difference, its standard error and degrees of freedom; None where there is no standard error."""
        if self.difference is None or self.se is None or self.df is None:
            return None
        return self.difference, self.se, self.df


def compare(a: Values, b: Values) -> Comparison:
    """The comparison of two arms; `difference_of` says when it is paired, when Welch's, and when there is no test."""
    from scipy.special import stdtrit

    found = difference_of(a, b)
    low, high = found.interval(LEVEL)
    half = None if low is None or high is None else (high - low) / 2
    test, paired = found.test, found.method == "paired t"
    df = None if test is None else float(test.df)
    return Comparison(
        n_a=len(found.values_a),
        n_b=len(found.values_b),
        n=len(found.differences),
        mean_a=_mean(found.values_a),
        mean_b=_mean(found.values_b),
        difference=found.difference,
        ci_low=low,
        ci_high=high,
        t=None if test is None else float(test.statistic),
        df=df,
        p=None if test is None else float(test.pvalue),
        d_z=float(found.differences.mean() / found.differences.std(ddof=1)) if paired else None,
        wilcoxon_p=_wilcoxon(found) if paired else None,
        detectable=None if half is None or df is None else detectable_difference(half, df),
        method=found.method,
        note=found.note,
        se=None if half is None else half / float(stdtrit(df, (1 + LEVEL) / 2)),
    )


def common_seeds(a: Values, b: Values) -> list[int]:
    """The seeds at which both arms have a finite value, in order."""
    return sorted(_finite(a).keys() & _finite(b).keys())


def difference_of(a: Values, b: Values) -> Difference:
    """The difference between arms `a` and `b`, paired over seeds when both have the same ones, else Welch's.

    Missing and non-finite values are left out first, and counted in the note, so an arm that lacks one value of
    five makes the pairs incomplete. Then
    - the same seeds in both: paired, df = n − 1;
    - other seeds in one than in the other: Welch's over all values of each arm, although some seeds may be
      common; the note says how many;
    - fewer than `MIN_SEEDS` values in an arm, or no spread but rounding noise: no test.
    *Source:* Student's paired and Welch's unequal-variances t test, by scipy.stats.
    """
    from scipy.stats import ttest_ind, ttest_rel

    finite_a, finite_b = _finite(a), _finite(b)
    common = sorted(finite_a.keys() & finite_b.keys())
    values_a, values_b = (np.array([arm[s] for s in sorted(arm)], dtype=np.float64) for arm in (finite_a, finite_b))
    differences = np.array([finite_a[seed] - finite_b[seed] for seed in common], dtype=np.float64)
    paired = finite_a.keys() == finite_b.keys()
    # The mean of the differences rounds less than the difference of the means, which is all that other seeds allow.
    difference = _mean(differences)
    if not paired:
        difference = float(values_a.mean() - values_b.mean()) if len(values_a) and len(values_b) else None
    noise = NOISE * max(largest(values_a), largest(values_b))
    lost = len(a) + len(b) - len(values_a) - len(values_b)
    left_out = f"{lost} value{'s' * (lost > 1)} not finite" if lost else ""

    def result(test: TtestResult | None, method: Method, *notes: str) -> Difference:
        return Difference(values_a, values_b, differences, difference, test, method, join_notes(*notes, left_out))

    if min(len(values_a), len(values_b)) < MIN_SEEDS:
        return result(None, "", TOO_FEW)
    spread = max(values.std(ddof=1) for values in ([differences] if paired else [values_a, values_b]))
    if spread <= noise:
        return result(None, "", NO_SPREAD)
    if paired:
        return result(ttest_rel(values_a, values_b), "paired t")
    with warnings.catch_warnings():
        # One arm may be constant, which scipy takes for a loss of precision.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ttest_ind(values_a, values_b, equal_var=False)
    return result(test, "Welch's t", f"seeds differ: {len(values_a)} and {len(values_b)}, {len(common)} common")


def detectable_difference(half_width: float, df: float) -> float:
    """The true difference that a two-sided t test at 0.05 finds with 80 % power.

    half_width: half the 95 % interval of the difference, on `df` degrees of freedom. The spread is taken as known to
    be what these seeds show; findings of the wrong sign, less than one in a million, are not counted.
    *Source:* power of the t test by the noncentral t distribution (Cohen 1988), which scipy inverts directly;
    statsmodels searches for it, to five digits, and not for Welch's degrees of freedom.
    """
    from scipy.special import nctdtrinc, stdtrit

    critical = float(stdtrit(df, (1 + LEVEL) / 2))
    return half_width / critical * float(nctdtrinc(df, 1 - POWER, critical))


def signed_rank_p(differences: np.ndarray) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test: of all 2ⁿ patterns of signs, the share as far out as this.

    differences: none of them zero; equal sizes share their rank. Scipy's exact distribution allows no ties, and its
    way with them takes seconds at 13 pairs. *Source:* Wilcoxon 1945; the distribution by adding one rank at a time.
    """
    from scipy.stats import rankdata

    doubled = np.rint(2 * rankdata(np.abs(differences))).astype(int)  # ties have halves
    patterns = np.zeros(doubled.sum() + 1)  # by the sum of the positive ranks
    patterns[0] = 1.0
    for rank in doubled:
        patterns[rank:] += patterns[: len(patterns) - rank].copy()
    reached = doubled[differences > 0].sum()
    tail = min(patterns[: reached + 1].sum(), patterns[reached:].sum())
    return min(1.0, 2 * float(tail / patterns.sum()))


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


def _wilcoxon(found: Difference) -> float | None:
    sizes = np.abs(found.differences)
    steps = np.sign(found.differences) * (1 + places(sizes, found.scale))
    steps = steps[sizes > NOISE * found.scale]
    return signed_rank_p(steps) if len(steps) >= MIN_WILCOXON else None


def _finite(arm: Values) -> dict[int, float]:
    return {seed: float(v) for seed, v in arm.items() if v is not None and math.isfinite(v)}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
