"""Which way a figure is better, and what a test of two rows allows to say, in words."""

from __future__ import annotations

from spectra_exp.measure.base import Direction
from spectra_exp.measure.others import figure
from spectra_exp.reporting.collect import base_name
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.corrections import stars

LEVEL = 0.05


def direction(name: str) -> Direction:
    """lower, higher or none; a figure under another rule of routing has its metric's direction."""
    return figure(base_name(name)).direction


def verdict(test: Comparison, corrected: float | None, better: str, inferior: float | None, equal: float | None) -> str:
    """What the tests allow to say, in words; nothing without runs, and "equivalent" only by an equivalence test."""
    if test.difference is None:
        return ""
    if test.p is None:
        return test.note
    if corrected is not None and corrected < LEVEL:
        if better == "none":
            return f"{'lower' if test.difference < 0 else 'higher'} {stars(corrected)}"
        good = (test.difference < 0) == (better == "lower")
        return f"{'better' if good else 'worse'} {stars(corrected)}"
    if equal is not None and equal < LEVEL:
        return "equivalent within the margin"
    if inferior is not None and inferior < LEVEL:
        return "not inferior within the margin"
    return "no difference found"
