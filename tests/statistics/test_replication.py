"""Verdicts on published effects: by claim, size of the effect, tolerance, and values without spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.replication import CLAIMS, decide

NOISE = np.random.default_rng(3).normal(0.0, 0.01, 5)
NOISE -= NOISE.mean()
TOLERANCE = 0.05


def said(claim: str, difference: float, noise: np.ndarray = NOISE, seeds: int = 5) -> str:
    a = {seed: 4.0 + seed + difference + float(noise[seed]) for seed in range(seeds)}
    test = compare(a, {seed: 4.0 + seed for seed in range(seeds)})
    return decide(claim, test, test.p, TOLERANCE).outcome


# By claim: what differences of −0.2, −0.02 (within the tolerance), 0, 0.02 and 0.2 say.
SAID = {
    "lower": "RCCCC",
    "higher": "CCCCR",
    "equal": "CRRRC",
    "not lower": "CRRRR",
    "not higher": "RRRRC",
}
WORDS = {"R": "reproduced", "C": "contradicted", "I": "inconclusive"}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_clear_difference_is_told_on_its_side_of_the_tolerance(claim: str) -> None:
    assert [said(claim, d) for d in (-0.2, -0.02, 0.0, 0.02, 0.2)] == [WORDS[c] for c in SAID[claim]]


@pytest.mark.parametrize("claim", CLAIMS)
def test_values_without_spread_are_taken_as_they_are(claim: str) -> None:
    flat = np.zeros(5)
    assert [said(claim, d, flat) for d in (-0.2, -0.02, 0.0, 0.02, 0.2)] == [WORDS[c] for c in SAID[claim]]


@pytest.mark.parametrize("claim", CLAIMS)
def test_noise_and_too_few_seeds_leave_it_open(claim: str) -> None:
    loud = 30 * NOISE
    assert {said(claim, d, loud) for d in (-0.02, 0.0, 0.02)} == {"inconclusive"}
    assert said(claim, 0.2, seeds=2) == "inconclusive"


def test_a_sign_needs_its_corrected_p() -> None:
    a = {seed: 4.0 - 0.2 + 8 * float(n) for seed, n in enumerate(NOISE)}
    test = compare(a, dict.fromkeys(a, 4.0))
    assert test.p < 0.05
    assert decide("lower", test, test.p, TOLERANCE).outcome == "reproduced"
    assert decide("lower", test, 4 * test.p, TOLERANCE).outcome == "inconclusive"


def test_the_p_is_that_of_the_test_which_decides() -> None:
    """By scipy's one-sided tests of the shifted differences; a corrected p of no difference decides no tolerance."""

    def decision(claim: str, difference: float, corrected: float = 0.9):
        a = {seed: difference + float(n) for seed, n in enumerate(NOISE)}
        values = np.array(list(a.values()))
        found = decide(claim, compare(a, dict.fromkeys(a, 0.0)), corrected, TOLERANCE)
        side = {bound: stats.ttest_1samp(values, bound, alternative="less").pvalue for bound in (TOLERANCE, -TOLERANCE)}
        return found, side[TOLERANCE], side[-TOLERANCE]

    found, below, _ = decision("not higher", 0.03)
    assert (found.p, found.null) == (pytest.approx(below), "beyond the tolerance")
    found, below, _ = decision("not higher", 0.08)
    assert (found.outcome, found.p, found.null) == ("contradicted", pytest.approx(1 - below), "within the tolerance")
    found, _, under = decision("not lower", 0.0)
    assert (found.p, found.null) == (pytest.approx(1 - under), "beyond the tolerance")
    found, below, under = decision("equal", 0.02)
    assert (found.p, found.null) == (pytest.approx(max(below, 1 - under)), "beyond the tolerance")
    found, below, under = decision("lower", -0.01)
    assert (found.outcome, found.p) == ("contradicted", pytest.approx(max(below, 1 - under)))
    found, *_ = decision("lower", -0.08, corrected=0.03)
    assert (found.outcome, found.p, found.null) == ("reproduced", 0.03, "no difference")
    flat = compare(dict.fromkeys(range(5), 1.0), dict.fromkeys(range(5), 0.0))
    assert decide("higher", flat, None, TOLERANCE).p is None
