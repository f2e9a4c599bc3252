"""Whether a published effect is there again: a difference beside its claim and its tolerance."""

from __future__ import annotations

from typing import Literal, get_args

from spectra_exp.statistics.comparison import NO_SPREAD, Comparison
from spectra_exp.statistics.intervals import ALPHA
from spectra_exp.statistics.practical import below_p

Claim = Literal["lower", "higher", "equal", "not lower", "not higher"]
Outcome = Literal["reproduced", "contradicted", "inconclusive"]
CLAIMS: tuple[Claim, ...] = get_args(Claim)


def outcome(claim: Claim, test: Comparison, corrected: float | None, tolerance: float) -> Outcome:
    """What a − b says of a claim about its sign, or of the claim that it is within −tolerance..tolerance.

    lower, higher: reproduced where the corrected two-sided p is below 0.05 on the claimed side, contradicted where it
    is on the other one, and where the difference is shown to be within the tolerance, so that there is no effect to
    speak of. equal, not lower, not higher: reproduced where one-sided tests at 0.05 show that the difference does not
    pass the tolerance (on both sides, or on the one named), contradicted where one shows that it does. Values that
    differ alike at every seed leave nothing to test: the difference is then taken as it is.
    """
    not_higher, higher = _lies(test, "below", tolerance), _lies(test, "above", tolerance)
    not_lower, lower = _lies(test, "above", -tolerance), _lies(test, "below", -tolerance)
    within = not_higher and not_lower
    match claim:
        case "equal":
            return _settled(within, higher or lower)
        case "not higher":
            return _settled(not_higher, higher)
        case "not lower":
            return _settled(not_lower, lower)
    certain = _exact(test) is not None or (corrected is not None and corrected < ALPHA)
    toward = test.difference is not None and (test.difference < 0) == (claim == "lower")
    return _settled(certain and toward and not within, within or (certain and not toward))


def _settled(shown: bool, refuted: bool) -> Outcome:
    return "reproduced" if shown else "contradicted" if refuted else "inconclusive"


def _exact(test: Comparison) -> float | None:
    """The difference where it is the same at every seed."""
    return test.difference if test.p is None and NO_SPREAD in test.note else None


def _lies(test: Comparison, side: Literal["below", "above"], bound: float) -> bool:
    """Whether it is shown, one-sided at 0.05, that the true difference lies on this side of the bound."""
    sign = 1 if side == "below" else -1
    if test.p is None or (seen := test.estimate) is None:
        exact = _exact(test)
        return exact is not None and sign * exact < sign * bound
    difference, se, df = seen
    return below_p(sign * difference, se, df, sign * bound) < ALPHA
