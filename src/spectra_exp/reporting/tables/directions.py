"""Which way is better, for every figure that a table can hold."""

from __future__ import annotations

from spectra_exp.measure.base import Direction
from spectra_exp.measure.others import figure
from spectra_exp.reporting.collect import base_name


def direction(name: str) -> Direction:
    """lower, higher or none; a figure under another rule of routing has its metric's direction."""
    return figure(base_name(name)).direction
