"""Which way a figure is better, and what a test of two rows allows to say, in words."""

from __future__ import annotations

from spectra_exp.measure.base import Direction
from spectra_exp.measure.others import figure
from spectra_exp.reporting.collect import base_name
from spectra_exp.statistics.comparison import Comparison, Sequential
from spectra_exp.statistics.corrections import stars
from spectra_exp.statistics.practical import equivalent_p, word

# What an interval over seeds is about, in a column and in a note.
OVER_SEEDS = "these methods, this text"
SEEDS_ALONE = (
    "Intervals of val_loss are over seeds alone: about these methods on these held-out documents. "
    "The table `documents` has those for other text too, and by domain; spectra-exp compare those of two runs."
)

ADDED = "seeds were added until decided; p and interval hold at all looks together."


def looks_text(sequential: Sequential) -> str:
    """The looks that were made, and the most seeds that the design allows."""
    return f"{', '.join(map(str, sequential.looks))} of {sequential.max_seeds}"


def direction(name: str) -> Direction:
    """lower, higher or none; a figure under another rule of routing has its metric's direction."""
    return figure(base_name(name)).direction


def better_words(name: str, start: str = "", end: str = "") -> str:
    """Which way a figure is better in words, between `start` and `end`; empty where neither is."""
    better = direction(name)
    return "" if better == "none" else f"{start}{better} is better{end}"


def margin(name: str) -> float | None:
    """Half the region of practical equivalence of a figure, by rule or not; None where none is declared."""
    return figure(base_name(name)).margin


def equivalence(test: Comparison, metric: str) -> tuple[float | None, float | None]:
    """Half the region of equivalence, and p of the tests against it: a design's own, else of the figure's region."""
    if test.sequential is not None:
        return test.sequential.margin, test.sequential.equivalent_p
    near, seen = margin(metric), test.estimate
    return near, None if near is None or seen is None else equivalent_p(*seen, near)


def verdict(test: Comparison, corrected: float | None, metric: str) -> str:
    """The word of `practical.word`; nothing without runs, the reason without a test. Equivalence says the sign."""
    if test.difference is None:
        return ""
    if test.p is None:
        return test.note
    match word(test.difference, corrected, equivalence(test, metric)[1], direction(metric)):
        case "equivalent":
            return f"equivalent ({'lower' if test.difference < 0 else 'higher'})"
        case "undecided":
            return "undecided"
        case said:
            return f"{said} {stars(corrected)}"
