"""Whether a published effect is there again: a difference beside its claim and its tolerance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from spectra_exp.statistics.comparison import NO_SPREAD, Comparison
from spectra_exp.statistics.intervals import ALPHA
from spectra_exp.statistics.practical import below_p

Claim = Literal["lower", "higher", "equal", "not lower", "not higher"]
Outcome = Literal["reproduced", "contradicted", "inconclusive"]
CLAIMS: tuple[Claim, ...] = get_args(Claim)
# Null hypotheses: of a two-sided test, and of one-sided tests against the tolerance.
NO_DIFFERENCE, BEYOND, WITHIN = "no difference", "beyond the tolerance", "within the tolerance"


@dataclass(frozen=True)
class Decision:
    """`p`: of the test that decided, or of the one that would have; None where there is nothing to test: too few
    seeds, or the same difference at each. `null`: that test's null hypothesis."""

    outcome: Outcome
    p: float | None
    null: str


def decide(claim: Claim, test: Comparison, corrected: float | None, tolerance: float) -> Decision:
    """What a − b says of a claim about its sign, or of the claim that it is within −tolerance..tolerance.

    lower, higher: reproduced where the corrected two-sided p is below 0.05 on the claimed side, contradicted where it
    is on the other one, and where the difference is shown to be within the tolerance, so that there is no effect to
    speak of. equal, not lower, not higher: reproduced where one-sided tests at 0.05 show that the difference does not
    pass the tolerance (on both sides, or on the one named), contradicted where one shows that it does. Values that
    differ alike at every seed leave nothing to test: the difference is then taken as it is.
    """
    not_higher, higher = _lies_p(test, "below", tolerance), _lies_p(test, "above", tolerance)
    not_lower, lower = _lies_p(test, "above", -tolerance), _lies_p(test, "below", -tolerance)
    within = max(not_higher, not_lower)
    match claim:
        case "equal":
            found = _of_tolerance(within, min(higher, lower))
        case "not higher":
            found = _of_tolerance(not_higher, higher)
        case "not lower":
            found = _of_tolerance(not_lower, lower)
        case _ if within < ALPHA:
            found = Decision("contradicted", within, BEYOND)
        case _:
            certain = _exact(test) is not None or (corrected is not None and corrected < ALPHA)
            toward = test.difference is not None and (test.difference < 0) == (claim == "lower")
            word: Outcome = "inconclusive" if not certain else "reproduced" if toward else "contradicted"
            found = Decision(word, corrected, NO_DIFFERENCE)
    return found if test.p is not None else replace(found, p=None)


def _of_tolerance(within_p: float, beyond_p: float) -> Decision:
    if within_p >= ALPHA > beyond_p:
        return Decision("contradicted", beyond_p, WITHIN)
    return Decision("reproduced" if within_p < ALPHA else "inconclusive", within_p, BEYOND)


def _exact(test: Comparison) -> float | None:
    """The difference where it is the same at every seed."""
    return test.difference if test.p is None and NO_SPREAD in test.note else None


def _lies_p(test: Comparison, side: Literal["below", "above"], bound: float) -> float:
    """One-sided p of the true difference lying on this side of the bound; 0 or 1 where there is nothing to test."""
    sign = 1 if side == "below" else -1
    if test.p is None or (seen := test.estimate) is None:
        exact = _exact(test)
        return 0.0 if exact is not None and sign * exact < sign * bound else 1.0
    difference, se, df = seen
    return below_p(sign * difference, se, df, sign * bound)
