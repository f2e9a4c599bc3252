"""Verdicts on published effects: by claim, size of the effect, tolerance, and values without spread."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.replication import CLAIMS, outcome

NOISE = np.random.default_rng(3).normal(0.0, 0.01, 5)
NOISE -= NOISE.mean()
TOLERANCE = 0.05


def said(claim: str, difference: float, noise: np.ndarray = NOISE, seeds: int = 5) -> str:
    a = {seed: 4.0 + seed + difference + float(noise[seed]) for seed in range(seeds)}
    test = compare(a, {seed: 4.0 + seed for seed in range(seeds)})
    return outcome(claim, test, test.p, TOLERANCE)


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
    assert outcome("lower", test, test.p, TOLERANCE) == "reproduced"
    assert outcome("lower", test, 4 * test.p, TOLERANCE) == "inconclusive"
