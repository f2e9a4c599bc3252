"""The registry of checks, and what a check finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spectra_exp.doctor.examined import DoesNotApply, Examined
from spectra_exp.foundations.errors import first_line
from spectra_exp.foundations.registry import Registry
from spectra_exp.measure.causality import TOLERANCE

OK, FAULT, DOUBTFUL, NOT_APPLICABLE = "ok", "fault", "doubtful", "does not apply"


@dataclass(frozen=True)
class Outcome:
    """What one check measured. `figure` is held against `limit`, None where there is nothing to hold it against.

    `limit_is`: what the limit is (a tolerance, what chance or rounding gives); `place`: the worst layer or token.
    """

    status: str
    figure: float | None = None
    limit: float | None = None
    limit_is: str = "tolerance"
    place: str = ""
    note: str = ""

    @classmethod
    def within(
        cls, figure: float, limit: float, place: str = "", note: str = "", limit_is: str = "tolerance"
    ) -> Outcome:
        """Ok where the figure is at most the limit, else a fault; a figure that is not a number is a fault."""
        status = OK if figure <= limit else FAULT
        return cls(status, figure, limit, limit_is, "" if status == OK else place, note)


@dataclass(frozen=True)
class Check:
    """A registered check. `figure`: what its number is; `ok_if`: what it must be; `meaning`: what a fault means;
    `advice`: what to do then; `rests_on`: the mode in which equal passes must give equal logits, else it is doubtful.
    """

    name: str
    title: str
    figure: str
    ok_if: str
    meaning: str
    advice: str
    order: int
    rests_on: str
    function: Callable[[Examined], Outcome]

    def run(self, examined: Examined) -> Finding:
        """What the check finds; a model that cannot be taken through it is doubtful, with the reason."""
        try:
            outcome = self._repeatable(self.function(examined), examined)
        except DoesNotApply as reason:
            outcome = Outcome(NOT_APPLICABLE, note=str(reason))
        # Whatever a model's code may raise: it is somebody else's.
        except Exception as error:
            outcome = Outcome(DOUBTFUL, note=f"could not be carried out ({type(error).__name__}: {first_line(error)})")
        return Finding(self, outcome)

    def _repeatable(self, outcome: Outcome, examined: Examined) -> Outcome:
        apart = examined.unrepeated(self.rests_on) if self.rests_on else 0.0
        if apart <= TOLERANCE or outcome.status not in (OK, FAULT):
            return outcome
        note = f"{self.rests_on} is not deterministic: the same batch twice differs by {apart:.2g}"
        return Outcome(DOUBTFUL, note=note)


@dataclass(frozen=True)
class Finding:
    """A check with its outcome."""

    check: Check
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        """One entry of the JSON file; meaning and advice where something is to be said."""
        check, outcome = self.check, self.outcome
        found: dict[str, Any] = {"check": check.name, "title": check.title, "status": outcome.status}
        found |= {"measures": check.figure, "figure": outcome.figure, "limit": outcome.limit}
        found |= {"limit_is": outcome.limit_is, "ok_if": check.ok_if, "place": outcome.place, "note": outcome.note}
        return found | {"meaning": check.meaning, "advice": check.advice}


CHECKS: Registry[Check] = Registry("check", "spectra_exp.doctor.checks")
checks, chosen_checks = CHECKS.all, CHECKS.chosen


def check(
    title: str, *, figure: str, ok_if: str, meaning: str, advice: str, order: int, rests_on: str = ""
) -> Callable[[Callable[[Examined], Outcome]], Callable[[Examined], Outcome]]:
    """A decorator that makes a function known as a check under its own name; `order`: its place in the table.

    `rests_on`: EVALUATION or TRAINING of `examined` for a check that compares passes. Raises ValueError for a name
    already taken.
    """

    def register(function: Callable[[Examined], Outcome]) -> Callable[[Examined], Outcome]:
        CHECKS.add(Check(function.__name__, title, figure, ok_if, meaning, advice, order, rests_on, function))
        return function

    return register
