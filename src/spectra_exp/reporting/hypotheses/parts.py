"""The parts of a claim, each tested once, and what they allow to say of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectra_exp.presentation.text import number_text, signed_text
from spectra_exp.reporting.tables.verdicts import looks_text
from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.corrections import holm_by_family
from spectra_exp.statistics.intervals import ALPHA
from spectra_exp.statistics.trends import Slope, Trend, page_trend
from spectra_exp.studies.decide import Design

Outcome = Literal["supported", "contradicted", "inconclusive", "not tested"]
Side = Literal["lower", "higher"]


@dataclass(frozen=True)
class Part:
    """One tested statement.

    estimate: its figures in words; toward: whether they lie on the claimed side. p: two-sided; None without a test,
    and then `untested` says why and `command` fills the gap (empty where nothing would). Parts of one `family` are
    corrected together.
    """

    what: str
    estimate: str = ""
    toward: bool = False
    p: float | None = None
    untested: str = ""
    command: str = ""
    family: str = ""


@dataclass(frozen=True)
class Ruling:
    """A verdict with the figures that it rests on, its reason, and the command that would fill what is missing."""

    figures: str
    verdict: Outcome
    reason: str
    command: str = ""


def judge(parts: Sequence[Part], guards: Sequence[Part] = ()) -> Ruling:
    """The verdict on a claim that needs every one of its parts, and that no guard may speak against.

    Significance is Holm's at `ALPHA`, over parts and guards of a family. Contradicted if any is significant against
    the claim; else not tested if any has no test; supported if every part is significant for it; else inconclusive.
    """
    every = [*parts, *guards]
    tested = list(zip(every, correct(every), strict=True))
    against = [part.what for part, p in tested if is_significant(p) and not part.toward]
    open_ones = [part.what for part, p in tested[: len(parts)] if not is_significant(p)]
    return settle([figure_text(part, p) for part, p in tested], against, every, open_ones)


def settle(figures: Sequence[str], against: Sequence[str], parts: Sequence[Part], open_ones: Sequence[str]) -> Ruling:
    """The verdict when it is known what speaks against the claim, and what is not shown (`open_ones`)."""
    text = "; ".join(filter(None, figures))
    if against:
        return Ruling(text, "contradicted", f"significant the other way: {', '.join(against)}")
    untested = [part for part in parts if part.p is None]
    if untested:
        reasons = dict.fromkeys(part.untested for part in untested)
        command = next((part.command for part in untested if part.command), "")
        return Ruling(text, "not tested", "; ".join(reasons), command)
    if open_ones:
        return Ruling(text, "inconclusive", f"not significant: {', '.join(open_ones)}")
    return Ruling(text, "supported", "")


def correct(parts: Sequence[Part]) -> list[float | None]:
    """Each part's p corrected by Holm over its family."""
    return holm_by_family([part.p for part in parts], [part.family for part in parts])


def is_significant(corrected: float | None) -> bool:
    """Whether a corrected p says something."""
    return corrected is not None and corrected < ALPHA


def figure_text(part: Part, corrected: float | None) -> str:
    """The part with its figures in words; empty for one without figures."""
    if not part.estimate:
        return ""
    p = f", p {_p_text(part.p)} (Holm {_p_text(corrected)})" if part.p is not None else f", {part.untested}"
    # Semicolons are between parts.
    return f"{part.what}: {part.estimate}{p}".replace("; ", ", ")


def compared(
    what: str,
    a: Mapping[int, float],
    b: Mapping[int, float],
    claimed: Side,
    family: str = "",
    note: str = "",
    design: Design | None = None,
) -> Part:
    """a − b over the seeds of both, which must be the same, claimed to lie below or above zero: a paired t test.

    design: by which seeds were added, whose looks the test then allows for.
    """
    assert a.keys() == b.keys(), "a hypothesis compares pairs"
    test = compare(a, b) if design is None else design.compare(a, b)
    difference = 0.0 if test.difference is None else test.difference
    looks = "" if test.sequential is None else f" (looks {looks_text(test.sequential)})"
    words = [f"{signed_text(difference)}{_bounds(test.ci_low, test.ci_high)}", f"n {test.n}{looks}", note]
    if test.detectable is not None:
        words.append(f"detectable {number_text(test.detectable)}")
    toward = difference < 0 if claimed == "lower" else difference > 0
    reason = test.note if test.p is None else ""
    return Part(what, ", ".join(filter(None, words)), toward, test.p, reason, family=family)


def ordered(what: str, values_NK: Sequence[Sequence[float]], family: str = "") -> Part:
    """The values claimed to rise from condition to condition [N seeds, K conditions]: Page's test, made two-sided."""
    rise, fall = (page_trend(np.asarray(values_NK)[:, ::step]) for step in (1, -1))
    if rise.p is None or fall.p is None:
        return Part(what, f"n {rise.n}", untested=rise.note, family=family)
    p = min(1.0, 2 * min(rise.p, fall.p))
    return Part(what, f"Page's L {number_text(rise.statistic)}, n {rise.n}", rise.p < fall.p, p, family=family)


def correlated(what: str, found: Trend, claimed: Side) -> Part:
    """A rank correlation claimed to lie below or above zero."""
    if found.p is None or found.statistic is None:
        return Part(what, f"{found.n} points", untested=found.note)
    toward = found.statistic < 0 if claimed == "lower" else found.statistic > 0
    return Part(what, f"Spearman {signed_text(found.statistic)}, {found.n} points", toward, found.p)


def sloped(what: str, found: Slope, claimed: Side, unit: str) -> Part:
    """A mean slope over seeds, in `unit`, claimed to lie below or above zero."""
    if found.p is None or found.slope is None:
        return Part(what, "" if found.slope is None else f"{signed_text(found.slope)} {unit}", untested=found.note)
    toward = found.slope < 0 if claimed == "lower" else found.slope > 0
    words = f"{signed_text(found.slope)}{_bounds(found.ci_low, found.ci_high)} {unit}, n {found.n}"
    return Part(what, words, toward, found.p)


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{signed_text(low)}, {signed_text(high)}]"


def _p_text(p: float | None) -> str:
    return "" if p is None else number_text(p) if p < 1e-4 else f"{p:.4f}"
