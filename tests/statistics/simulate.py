"""Figures of docs/statistics.md: `python tests/statistics/simulate.py coverage|looks|power`.

coverage   share of two-way and of seed-only intervals that hold the true difference, at 3 to 10 seeds
looks      false claims under peeking, also in another figure, and decisions and seeds at effects of 0, 0.5, 1 and 2
           standard deviations
power      the same for other shapes of the levels, and for a t-test martingale, which may be looked at after each seed
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from spectra_exp.statistics import looks
from spectra_exp.statistics.crossed import crossed_difference

STUDIES, MAX_SEEDS, EFFECTS = 10_000, 10, (0.0, 0.5, 1.0, 2.0)
PRIOR_VARIANCE = 1.0  # of the effect, in standard deviations, of the martingale


class Decisions(NamedTuple):
    """Shares of studies that claim a difference and equivalence, and the mean number of seeds."""

    different: float
    equivalent: float
    seeds: float


def cells(rng, seeds: int, documents: int, seed_sd: float, document_sd: float, cell_sd: float = 0.05):
    """Differences of loss [S, G] and tokens [G], whose parts have these standard deviations a token."""
    size_G = rng.integers(20, 400, documents)
    rate_SG = rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, document_sd, documents)
    return (rate_SG + rng.normal(0, cell_sd, (seeds, documents))) * size_G, size_G


def coverage(seeds: int, document_sd: float, count: int = 800) -> tuple[float, float]:
    """Shares of two-way and of seed-only intervals that hold the true difference, 0, over other seeds and texts."""
    rng = np.random.default_rng(seeds)
    found = [crossed_difference(*cells(rng, seeds, 60, 0.01, document_sd)) for _ in range(count)]
    two_way = np.mean([d.ci_low <= 0 <= d.ci_high for d in found])
    return float(two_way), float(np.mean([d.seed_low <= 0 <= d.seed_high for d in found]))


def peek(effect: float, margin: float, studies: int = STUDIES, max_seeds: int = MAX_SEEDS) -> Decisions:
    """Studies of differences with this mean, unit spread, and a margin; each stops at its first claim."""
    planned = looks.schedule(max_seeds)
    values_RS = np.random.default_rng(1).standard_normal((studies, max_seeds)) + effect
    claims = np.zeros((2, studies), dtype=bool)
    used_R = np.full(studies, max_seeds)
    open_R = np.ones(studies, dtype=bool)
    for n in planned:
        for r in np.nonzero(open_R)[0]:
            found = looks.look(values_RS[r, :n], max_seeds, margin)
            claims[:, r] = (found.equivalent_p >= 0.05) & (found.p < 0.05), found.equivalent_p < 0.05
        stopped_R = open_R & claims.any(axis=0)
        used_R[stopped_R] = n
        open_R &= ~stopped_R
    return Decisions(*claims.mean(axis=1).tolist(), float(used_R.mean()))


def another_figure(correlation: float, margin: float, studies: int = STUDIES) -> tuple[float, float]:
    """False claims in a figure beside the one that ends the looks: by the last look alone, and by the p of looks."""
    rng = np.random.default_rng(1)
    found = np.zeros(2)
    for _ in range(studies):
        decides, own = rng.standard_normal((2, MAX_SEEDS))
        other = correlation * decides + np.sqrt(1 - correlation**2) * own
        for n in looks.schedule(MAX_SEEDS):
            seen = looks.look(decides[:n], MAX_SEEDS, margin)
            if min(seen.p, seen.equivalent_p) < 0.05:
                break
        t = other[:n].mean() / (other[:n].std(ddof=1) / np.sqrt(n))
        found += 2 * stdtr(n - 1, -abs(t)) < 0.05, looks.look(other[:n], MAX_SEEDS).p < 0.05
    return tuple((found / studies).tolist())


def martingale(effect: float, studies: int = STUDIES, max_seeds: int = MAX_SEEDS) -> tuple[float, float]:
    """Share of studies that find a difference, and mean seeds, by the Bayes factor of t with a normal prior.

    With the right Haar prior of the spread it is a test martingale: evidence of 20 is an error of 5 % at any time.
    """
    values_RS = np.random.default_rng(1).standard_normal((studies, max_seeds)) + effect
    used_R, found_R = np.full(studies, max_seeds), np.zeros(studies, dtype=bool)
    for n in range(3, max_seeds + 1):
        seen = values_RS[:, :n]
        squared = n * seen.mean(1) ** 2 / seen.var(1, ddof=1)
        more = 1 + n * PRIOR_VARIANCE
        factor = more**-0.5 * ((1 + squared / (n - 1)) / (1 + squared / (more * (n - 1)))) ** (n / 2)
        new = ~found_R & (factor >= 20)
        used_R[new], found_R = n, found_R | new
    return float(found_R.mean()), float(used_R.mean())


def main(what: str) -> None:
    if what == "coverage":
        for seeds in (3, 4, 5, 7, 10):
            for document_sd in (0.0, 0.03, 0.1, 0.3):
                two_way, alone = coverage(seeds, document_sd, 4000)
                print(f"{seeds} seeds, documents {document_sd}: two-way {two_way:.3f}, seeds alone {alone:.3f}")
    elif what == "looks":
        for margin in (0.5, 1.0, 2.0):
            for effect in sorted({*EFFECTS, margin}):
                print(f"effect {effect}, margin {margin}: {peek(effect, margin)}", flush=True)
        for correlation in (0.5, 0.9, 1.0):
            print(f"another figure, correlation {correlation}: {another_figure(correlation, 1.0)}", flush=True)
    else:
        for effect in EFFECTS:
            print(f"martingale, effect {effect}: {martingale(effect)}")
        for looks.POWER in (0.0, 0.5, 1.0, 2.0, 3.0):
            looks._null.cache_clear()
            looks._level.cache_clear()
            print(looks.POWER, [_fast(effect) for effect in EFFECTS], flush=True)


def _fast(effect: float) -> tuple[float, float]:
    """As `peek` of differences alone, by the levels themselves."""
    planned = looks.schedule(MAX_SEEDS)
    values_RS = np.random.default_rng(1).standard_normal((STUDIES, MAX_SEEDS)) + effect
    used_R, found_R = np.full(STUDIES, MAX_SEEDS), np.zeros(STUDIES, dtype=bool)
    for n, level in zip(planned, looks._level(planned), strict=True):
        seen = values_RS[:, :n]
        t = seen.mean(1) / (seen.std(1, ddof=1) / np.sqrt(n))
        new = ~found_R & (2 * stdtr(n - 1, -np.abs(t)) <= level)
        used_R[new], found_R = n, found_R | new
    return float(found_R.mean()), float(used_R.mean())


if __name__ == "__main__":
    main(sys.argv[1])
