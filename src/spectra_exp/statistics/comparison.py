"""Two arms compared over seeds: difference, interval, p-value, effect size, and what could have been found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spectra_exp.statistics.estimate import NOISE, Estimate, Method, estimate, places
from spectra_exp.statistics.mean import LEVEL

POWER = 0.8
MIN_WILCOXON = 6  # with five differences the smallest two-sided p is 2/2⁵ = 0.0625


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


def compare(a: Mapping[int, float | None], b: Mapping[int, float | None]) -> Comparison:
    """The comparison of two arms, each a map from seed to value.

    `estimate` says when it is paired, when Welch's, and when there is no test; without one there is no interval
    either, since an interval that leaves out zero is a significant test by another name.
    """
    from scipy.special import stdtr, stdtrit

    found = estimate(a, b)
    low = high = t = p = detectable = None
    if found.error is not None:
        t = found.difference / found.error
        p = min(1.0, 2 * float(stdtr(found.df, -abs(t))))
        half = float(stdtrit(found.df, (1 + LEVEL) / 2)) * found.error
        low, high = found.difference - half, found.difference + half
        detectable = detectable_difference(found.error, found.df)
    return Comparison(
        n_a=len(found.values_a),
        n_b=len(found.values_b),
        n=len(found.differences),
        mean_a=_mean(found.values_a),
        mean_b=_mean(found.values_b),
        difference=found.difference,
        ci_low=low,
        ci_high=high,
        t=t,
        df=found.df,
        p=p,
        d_z=_effect_size(found),
        wilcoxon_p=_wilcoxon(found),
        detectable=detectable,
        method=found.method,
        note=found.note,
    )


def detectable_difference(error: float, df: float) -> float:
    """The true difference that a two-sided t test at 0.05 finds with 80 % power.

    error: standard error of the difference, on `df` degrees of freedom. The spread is taken as known to be what
    these seeds show; findings of the wrong sign, less than one in a million, are not counted.
    *Source:* power of the t test by the noncentral t distribution (Cohen 1988).
    """
    from scipy.special import nctdtrinc, stdtrit

    critical = stdtrit(df, (1 + LEVEL) / 2)
    return error * float(nctdtrinc(df, 1 - POWER, critical))


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


def _effect_size(found: Estimate) -> float | None:
    if found.method != "paired t":
        return None
    return found.difference / float(found.differences.std(ddof=1))


def _wilcoxon(found: Estimate) -> float | None:
    if found.method != "paired t":
        return None
    sizes = np.abs(found.differences)
    steps = np.sign(found.differences) * (1 + places(sizes, found.scale))
    steps = steps[sizes > NOISE * found.scale]
    return signed_rank_p(steps) if len(steps) >= MIN_WILCOXON else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
