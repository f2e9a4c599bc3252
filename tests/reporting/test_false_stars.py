"""A/A studies: identical arms, so that every star is a false one.

Each of 1,000 studies compares 3 arms with a baseline in 3 metrics over 5 seeds, Holm within the family of 9. The
arms of a seed share its luck, and the metrics of a run hang together, as in real studies.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from spectra_exp.statistics.comparison import Comparison, compare
from spectra_exp.statistics.corrections import benjamini_hochberg, holm, stars

STUDIES, ARMS, METRICS, SEEDS = 1000, 4, 3, 5
# At a true rate of 5 % more than this many starred studies come up once in a hundred times.
BOUND = int(scipy.stats.binom.ppf(0.99, STUDIES, 0.05))


def _identical_arms() -> np.ndarray:
    """[study, arm, metric, seed] values; arm 0 is the baseline."""
    rng = np.random.default_rng(20)
    luck = rng.normal(3.0, 0.2, (STUDIES, 1, METRICS, SEEDS))
    run = rng.normal(0.0, 0.02, (STUDIES, ARMS, 1, SEEDS))
    return luck + run + rng.normal(0.0, 0.02, (STUDIES, ARMS, METRICS, SEEDS))


@pytest.fixture(scope="module")
def studies() -> list[dict[tuple[int, int], Comparison]]:
    """For each study, (arm, metric) → its comparison with the baseline."""
    tests = [(arm, metric) for arm in range(1, ARMS) for metric in range(METRICS)]
    return [
        {
            (arm, metric): compare(dict(enumerate(study[arm, metric])), dict(enumerate(study[0, metric])))
            for arm, metric in tests
        }
        for study in _identical_arms()
    ]


def _starred(families) -> int:
    """How many families have a star."""
    return sum(any(stars(p) for p in family.values()) for family in families)


def test_at_most_one_study_in_twenty_has_a_star(studies) -> None:
    corrected = [holm({key: test.p for key, test in study.items()}) for study in studies]
    assert BOUND == 67 and 0 < _starred(corrected) <= BOUND


def test_single_tests_are_right_one_time_in_twenty(studies) -> None:
    p = np.array([[test.p for test in study.values()] for study in studies])
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.01)
    assert np.mean(p < 0.5) == pytest.approx(0.5, abs=0.03)


def test_planted_no_correction_exceeds_it(studies) -> None:
    assert _starred({key: test.p for key, test in study.items()} for study in studies) > 3 * BOUND


def test_planted_family_of_one_metric_exceeds_it(studies) -> None:
    """Each metric corrected by itself, as if the others had not been looked at."""
    by_metric = (
        {
            key: p
            for metric in range(METRICS)
            for key, p in holm({key: test.p for key, test in study.items() if key[1] == metric}).items()
        }
        for study in studies
    )
    assert _starred(by_metric) > BOUND


def test_planted_normal_distribution_exceeds_it(studies) -> None:
    """The normal distribution in place of Student's with four degrees of freedom."""
    families = (
        holm({key: 2 * float(scipy.stats.norm.sf(abs(test.t))) for key, test in study.items()}) for study in studies
    )
    assert _starred(families) > 3 * BOUND


def test_identical_arms_are_all_of_the_null_for_benjamini_hochberg_too(studies) -> None:
    """With nothing to find, its share of false findings is the chance of any finding."""
    assert _starred(benjamini_hochberg({key: test.p for key, test in study.items()}) for study in studies) <= BOUND
