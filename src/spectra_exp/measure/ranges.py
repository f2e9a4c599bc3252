"""What values a figure can have: bounds that are numbers, or follow from the sizes of the model and the data.

Letters: E experts, k experts per token, M domains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# Experts' ids are stored as int16.
MOST_EXPERTS = 2**15
# Rounding of sums over many tokens.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Sizes:
    """What bounds follow from; None where it is not known, which gives the widest bound that any model has."""

    experts: int | None = None
    top_k: int | None = None
    domains: int | None = None


BOUNDS: dict[str, Callable[[Sizes], float]] = {
    "log E": lambda s: math.log(s.experts or MOST_EXPERTS),
    "√(E − 1)": lambda s: math.sqrt((s.experts or MOST_EXPERTS) - 1),
    "E": lambda s: float(s.experts or MOST_EXPERTS),
    "E − 1": lambda s: (s.experts or MOST_EXPERTS) - 1.0,
    "1 − 1/E": lambda s: 1 - 1 / (s.experts or MOST_EXPERTS),
    # Of two experts the cosine can be −1.
    "−1/(E − 1)": lambda s: -1 / max((s.experts or 2) - 1, 1),
    # Some rules give a token more than k experts.
    "1/E": lambda s: 1 / (s.experts or MOST_EXPERTS),
    "E/k": lambda s: (s.experts or MOST_EXPERTS) / (s.top_k or 1),
    "log M": lambda s: math.log(s.domains or MOST_EXPERTS),
    "1/M": lambda s: 1 / (s.domains or MOST_EXPERTS),
    "1/2": lambda _: 0.5,
}


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both possible. Raises ValueError for a bound that `BOUNDS` does not have."""

    low: float | str = -math.inf
    high: float | str = math.inf

    def __post_init__(self) -> None:
        unknown = [bound for bound in (self.low, self.high) if isinstance(bound, str) and bound not in BOUNDS]
        if unknown:
            raise ValueError(f"no bound is called '{unknown[0]}'; there are {', '.join(BOUNDS)}")

    def holds(self, value: float, sizes: Sizes) -> bool:
        """Whether `value` is finite and possible in a run of these sizes."""
        low, high = (BOUNDS[b](sizes) if isinstance(b, str) else b for b in (self.low, self.high))
        return math.isfinite(value) and low - TOLERANCE <= value <= high + TOLERANCE * max(1.0, abs(high))

    @property
    def text(self) -> str:
        """The range in words, such as "0 to log E"."""
        return " to ".join(_bound_text(bound) for bound in (self.low, self.high))


def _bound_text(bound: float | str) -> str:
    if isinstance(bound, str):
        return bound
    sign = "−" if bound < 0 else ""
    return f"{sign}∞" if math.isinf(bound) else f"{sign}{abs(bound):g}"
