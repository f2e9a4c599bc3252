"""Routing temperature by optimizer step: constant or on a schedule (docs/method.md 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.options import option

# The step schedule: 5, then 2 from 20 % of the steps, then 1 from 60 % (docs/method.md 4), as shares of start and end.
STEP_POINTS = ((0.6, 1.0), (0.2, 2.0), (0.0, 5.0))
# The option whose value finished runs decide (runs/best_long.py).
BEST_LONG = "best_long"
# How many times the steps it makes.
LENGTHENING = 2


@dataclass
class TemperatureConfig:
    """The divisor of the router's logits (for SPECTRA, a factor on epsilon)."""

    schedule: str = option(
        "constant", "how it moves over training", choices=["constant", "linear", "cosine", "exponential", "step"]
    )
    value: float = option(
        1.0, "temperature of the constant schedule, and where a learned one starts", above=0, maximum=LARGEST_WEIGHT
    )
    start: float = option(
        5.0, "temperature at the first step of linear, cosine and exponential", above=0, maximum=LARGEST_WEIGHT
    )
    end: float = option(
        1.0, "temperature at the last step of linear, cosine and exponential", above=0, maximum=LARGEST_WEIGHT
    )
    learned: str = option(
        "none",
        "what learns a temperature of its own, from `value` on: the model, each layer, each expert, each token",
        choices=["none", "global", "layer", "expert", "token"],
    )


def temperature_at(config: TemperatureConfig, step: int, total_steps: int) -> float:
    """Temperature at optimizer step `step` (0-based) of `total_steps`; the last step is at the end temperature.

    *Source:* paper/temperature_experiment.md, table of schedules.
    """
    progress = min(1.0, max(0.0, step / max(1, total_steps - 1)))
    start, end = config.start, config.end
    match config.schedule:
        case "constant":
            return config.value
        case "linear":
            return start + (end - start) * progress
        case "cosine":
            return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
        case "exponential":
            return start * (end / start) ** progress
        case "step":
            return next(value for begin, value in STEP_POINTS if progress >= begin)
    raise AssertionError(config.schedule)
