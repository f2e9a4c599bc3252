"""Figures of a run that belong to no routed layer: which way is better, and what values they can have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectra_exp.measure.base import METRICS, Direction
from spectra_exp.measure.ranges import Range

# Nats a token; above it the perplexity is beyond any float, and evaluations write none.
LARGEST_LOSS = 700.0
# Training computes in float32, so nothing that a run measures is larger.
LARGEST = 3.4028235e38

# Nats: losses that differ by less are the same for practice.
LOSS_MARGIN = 0.02

LOSS = Range(0, LARGEST_LOSS)
PERPLEXITY = Range(1, math.exp(LARGEST_LOSS))
SHARE = Range(0, 1)
POSITIVE = Range(0, LARGEST)
ANY = Range(-LARGEST, LARGEST)


@dataclass(frozen=True)
class Figure:
    """`direction`: which way is better; `range`: the values that it can have.

    `margin`: half its region of practical equivalence; None where none is declared.
    """

    direction: Direction
    range: Range
    margin: float | None = None


OTHER: dict[str, Figure] = {
    "val_loss": Figure("lower", LOSS, LOSS_MARGIN),
    "val_perplexity": Figure("lower", PERPLEXITY),
    "val_accuracy": Figure("higher", SHARE),
    "train_loss": Figure("lower", LOSS, LOSS_MARGIN),
    "gap_closure": Figure("higher", ANY),
    "tokens_per_second": Figure("higher", POSITIVE),
    "step_time_ms": Figure("lower", POSITIVE),
    "peak_memory_mb": Figure("lower", POSITIVE),
    "sinkhorn_residual": Figure("lower", POSITIVE),
    "experts_without_gradient": Figure("none", SHARE),
}
# By the beginning of the name. A score may be a correlation.
FAMILIES: dict[str, Figure] = {
    "val_loss_": Figure("lower", LOSS, LOSS_MARGIN),
    "val_perplexity_": Figure("lower", PERPLEXITY),
    "downstream_": Figure("higher", Range(-1, 1)),
    "executed_k_": Figure("none", POSITIVE),
    "grad_norm_": Figure("none", POSITIVE),
    "update_ratio_": Figure("none", POSITIVE),
    "learning_rate_": Figure("none", POSITIVE),
}
UNKNOWN = Figure("none", ANY)


def figure(name: str) -> Figure:
    """What is declared of the figure `name`, a routing metric or not; of a name that nobody declares, next to nothing.

    The floor of a metric has the metric's range.
    """
    known = METRICS.get(name) or METRICS.get(name.removesuffix("_floor"))
    if known is not None:
        return Figure(known.direction, known.range, known.margin)
    if name in OTHER:
        return OTHER[name]
    return next((found for start, found in FAMILIES.items() if name.startswith(start)), UNKNOWN)
