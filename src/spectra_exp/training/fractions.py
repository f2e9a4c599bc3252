"""At which steps every run is evaluated."""

from __future__ import annotations

# Shares of training (docs/method.md 3).
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)


def fraction_steps(max_steps: int) -> list[int]:
    """Optimizer steps at 10, 25, 50, 75 and 100 % of the run; in short runs several may coincide."""
    return [max(1, round(f * max_steps)) for f in FRACTIONS]
