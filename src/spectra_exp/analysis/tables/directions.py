"""Which way is better, for every figure that a table can hold."""

from __future__ import annotations

from spectra_exp.analysis.collect import base_name
from spectra_exp.metrics.base import Direction
from spectra_exp.metrics.others import figure


def direction(name: str) -> Direction:
    """lower, higher or none; a figure under another rule of routing has its metric's direction."""
    return figure(base_name(name)).direction
