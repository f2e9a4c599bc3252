"""Methods over several settings (data, sizes): ranks, their interquartile mean, and who is better how often.

Letters: S settings, M methods, N seeds. Values of one setting are never set against those of another, so that settings
may have other scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectra_exp.statistics.intervals import LEVEL
from spectra_exp.statistics.resampling import RESAMPLES

# The share that an interquartile mean leaves out at each end.
TRIMMED = 0.25
FEWEST_SETTINGS, FEWEST_SEEDS = 2, 3


@dataclass(frozen=True)
class Estimate:
    """A figure with the 95 % percentile interval of its stratified bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OverSettings:
    """What is said of the methods over `settings` settings with at least `seeds` seeds each.

    rank: by method, interquartile mean of its ranks (1 is the best of M) over settings and seeds; improvement: for
    each pair of methods (a, b) the mean over settings of the probability that a run of a is better than one of b.
    """

    settings: int
    seeds: int
    rank: dict[str, Estimate]
    improvement: dict[tuple[str, str], Estimate]


def over_settings(values: Sequence[Mapping[str, Sequence[float]]], better: Literal["lower", "higher"]) -> OverSettings:
    """Ranks and probabilities of improvement of M methods over S settings.

    values: a mapping a setting, of each method's values, finite and in the same order of seeds. Resamples draw seeds
    within each setting, those of all methods together, because they are paired. Raises ValueError for fewer than two
    settings or methods, other methods in one setting than in another, or fewer than three seeds.
    *Source:* Agarwal et al. 2021 (rliable): interquartile mean, probability of improvement, stratified bootstrap; ranks
    in place of scores, which would need a scale that settings share.
    """
    from scipy.stats import rankdata

    methods = list(values[0]) if values else []
    if len(values) < FEWEST_SETTINGS or len(methods) < 2 or any(list(setting) != methods for setting in values):
        raise ValueError("two settings and two methods at least, the same ones in each")
    sign = 1.0 if better == "lower" else -1.0
    arrays = [sign * np.array([setting[name] for name in methods], dtype=np.float64).T for setting in values]  # [N, M]
    if min(map(len, arrays)) < FEWEST_SEEDS or not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{FEWEST_SEEDS} seeds with finite values at least in each setting")
    ranks = [rankdata(array_NM, axis=1) for array_NM in arrays]
    # The drawn seeds of each setting; the first of all is the data itself.
    rng = np.random.default_rng(0)
    drawn = [np.concatenate([np.arange(len(a))[None], rng.integers(0, len(a), (RESAMPLES, len(a)))]) for a in arrays]
    pooled_RNM = np.concatenate([own[index] for own, index in zip(ranks, drawn, strict=True)], axis=1)
    middle_RM = interquartile_mean(pooled_RNM, axis=1)
    pairs = [(a, b) for a in range(len(methods)) for b in range(len(methods)) if a != b]
    wins = {
        (methods[a], methods[b]): np.mean(
            [_wins(array[:, a], array[:, b], index) for array, index in zip(arrays, drawn, strict=True)], axis=0
        )
        for a, b in pairs
    }
    return OverSettings(
        len(arrays),
        min(map(len, arrays)),
        {name: _estimate(middle_RM[:, place]) for place, name in enumerate(methods)},
        {pair: _estimate(wins_R) for pair, wins_R in wins.items()},
    )


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean of the middle half along an axis. *Source:* rliable's aggregate_iqm."""
    from scipy.stats import trim_mean

    return trim_mean(values, TRIMMED, axis=axis)


def _wins(a_N: np.ndarray, b_N: np.ndarray, drawn_RN: np.ndarray) -> np.ndarray:
    """[R]: share of the pairs of drawn runs in which that of a is below that of b; ties count half."""
    counts_RN = (drawn_RN[:, :, None] == np.arange(len(a_N))).sum(axis=1) / len(a_N)
    below_NN = (a_N[:, None] < b_N) + 0.5 * (a_N[:, None] == b_N)
    return ((counts_RN @ below_NN) * counts_RN).sum(axis=1)


def _estimate(drawn_R: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn_R[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(drawn_R[0]), float(low), float(high))
