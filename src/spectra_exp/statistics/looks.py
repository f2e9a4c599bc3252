"""Seeds added until a comparison is decided: looks after 3, 5, 7, ... seeds whose errors stay at 5 % together.

The design is group-sequential, calibrated jointly for t: a look's level is `shape` times one constant, found from
simulated studies without an effect, because levels derived from z give 5.4 to 5.7 % at so few seeds. A comparison's
evidence is summed up by its sequential p: the chance that any look so far is as far out, which holds at every look, so
that several comparisons can be corrected by Holm. Letters: L looks, R simulated studies, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from spectra_exp.statistics.comparison import (
    NO_SPREAD,
    NOISE,
    Comparison,
    Sequential,
    Values,
    common_seeds,
    compare,
    join_notes,
    largest,
)
from spectra_exp.statistics.intervals import LEVEL

FIRST_LOOKS = (3, 5, 7, 10)
STEP = 5  # further looks, each so many seeds after the one before
# The level of a look grows with the share of seeds to this power: 0 is Pocock's, 3 about that of O'Brien and Fleming.
POWER = 1.0
SIMULATED = 400_000
BLOCK = 50_000

Side = Literal["two-sided", "one-sided"]


@dataclass(frozen=True)
class Looks:
    """Sequential p-values of a comparison at its last look, and the interval that goes with them.

    n: seeds at the last look. p: of no difference. equivalent_p: of a difference of the margin or more (None without a
    margin). low, high: the repeated interval at 95 %, which holds at all looks together. Figures are None where the
    differences do not vary at that look.
    """

    n: int
    p: float | None = None
    equivalent_p: float | None = None
    low: float | None = None
    high: float | None = None


def schedule(max_seeds: int) -> tuple[int, ...]:
    """The numbers of seeds at which is looked: 3, 5, 7, 10, 15, ... and `max_seeds`. Raises ValueError below 3."""
    if max_seeds < FIRST_LOOKS[0]:
        raise ValueError(f"{max_seeds} seeds; a look needs {FIRST_LOOKS[0]}")
    further = range(FIRST_LOOKS[-1] + STEP, max_seeds, STEP)
    return (*(n for n in (*FIRST_LOOKS, *further) if n < max_seeds), max_seeds)


def look(differences: Sequence[float], max_seeds: int, margin: float | None = None) -> Looks:
    """The evidence of paired `differences`, in the order of seeds, at the last look that they reach.

    Differences after that look are not used: a look in between was not planned. Raises ValueError for fewer
    differences than the first look needs, or more than `max_seeds`.
    """
    from scipy.special import stdtrit

    planned = schedule(max_seeds)
    reached = [n for n in planned if n <= len(differences)]
    if not reached or len(differences) > max_seeds:
        raise ValueError(f"{len(differences)} differences; looks are at {planned[0]} to {max_seeds} seeds")
    last, values_S = reached[-1], np.asarray(differences, dtype=np.float64)
    means = np.array([values_S[:n].mean() for n in reached])
    errors = np.array([values_S[:n].std(ddof=1) / np.sqrt(n) for n in reached])
    # A look at equal differences shows nothing: it has no t, and counts with p = 1.
    errors[errors <= NOISE * largest(values_S)] = np.nan
    if np.isnan(errors[-1]):
        return Looks(last)
    p = _sequential(means / errors, planned, "two-sided")
    # The sides are tested by themselves, and both must hold: |difference| < margin.
    sides = () if margin is None else ((margin - means) / errors, (margin + means) / errors)
    equivalent = max((_sequential(t, planned, "one-sided") for t in sides), default=None)
    half = float(stdtrit(last - 1, 1 - _level(planned)[len(reached) - 1] / 2) * errors[-1])
    return Looks(last, p, equivalent, float(means[-1] - half), float(means[-1] + half))


def compare_at_looks(a: Values, b: Values, max_seeds: int, margin: float | None = None) -> Comparison:
    """The comparison of two arms of a design with looks, at the last look that their pairs reach.

    p is the sequential one and the interval the repeated one; they hold whatever decided that a look was the last, so
    also for figures beside the one that seeds were added for. Pairs after that look, and after `max_seeds`, are not
    used. As `compare` where there is no test. Raises ValueError for `max_seeds` below 3.
    """
    seeds = common_seeds(a, b)[:max_seeds]
    reached = [n for n in schedule(max_seeds) if n <= len(seeds)]
    used = seeds[: reached[-1]] if reached else seeds
    arm_a, arm_b = ({seed: float(v) for seed in used if (v := arm[seed]) is not None} for arm in (a, b))
    plain = compare(arm_a, arm_b)
    seen = look([arm_a[seed] - arm_b[seed] for seed in used], max_seeds, margin) if plain.p is not None else None
    if seen is None or seen.p is None:
        # No test of a fixed number of seeds in its place: a look at equal differences shows nothing.
        note = join_notes(plain.note, "" if plain.p is None else NO_SPREAD)
        return replace(plain, p=None, ci_low=None, ci_high=None, wilcoxon_p=None, detectable=None, note=note)
    return replace(
        plain,
        p=seen.p,
        ci_low=seen.low,
        ci_high=seen.high,
        wilcoxon_p=None,
        detectable=None,
        sequential=Sequential(tuple(reached), max_seeds, margin, seen.equivalent_p),
    )


def shape(planned: Sequence[int]) -> np.ndarray:
    """[L]: the level of each look over that of the last one."""
    return (np.array(planned) / planned[-1]) ** POWER


def _sequential(t: np.ndarray, planned: tuple[int, ...], side: Side) -> float:
    """The chance, without an effect, that a study under `planned` looks is at any look as far out as at the worst."""
    weighted = np.nan_to_num(_p(t, np.array(planned[: len(t)]), side), nan=1.0) / shape(planned)[: len(t)]
    null_R = _null(planned, side)
    # As by Phipson and Smyth 2010: never 0, and never below the simulated share.
    return (1 + int(np.searchsorted(null_R, weighted.min(), side="right"))) / (1 + len(null_R))


@lru_cache(maxsize=16)
def _level(planned: tuple[int, ...]) -> np.ndarray:
    """[L]: the two-sided level of each look, whose errors are 5 % together."""
    return shape(planned) * float(np.quantile(_null(planned, "two-sided"), 1 - LEVEL))


def _p(t: np.ndarray, n: np.ndarray | int, side: Side) -> np.ndarray:
    from scipy.special import stdtr

    return 2 * stdtr(n - 1, -np.abs(t)) if side == "two-sided" else stdtr(n - 1, -t)


@lru_cache(maxsize=16)
def _null(planned: tuple[int, ...], side: Side) -> np.ndarray:
    """[R], increasing: the smallest p over its shape, over all looks, of simulated studies without an effect."""
    rng, found = np.random.default_rng(0), []
    shapes = shape(planned)
    for _ in range(SIMULATED // BLOCK):
        values_RS = rng.standard_normal((BLOCK, planned[-1]))
        smallest_R = np.full(BLOCK, np.inf)
        for n, share in zip(planned, shapes, strict=True):
            seen_RS = values_RS[:, :n]
            t_R = seen_RS.mean(axis=1) / (seen_RS.std(axis=1, ddof=1) / np.sqrt(n))
            np.minimum(smallest_R, _p(t_R, n, side) / share, out=smallest_R)
        found.append(smallest_R)
    null_R = np.sort(np.concatenate(found))
    null_R.flags.writeable = False
    return null_R
