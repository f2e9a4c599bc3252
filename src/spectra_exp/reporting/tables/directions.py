"""Which way is better, for every figure that a table can hold."""

from __future__ import annotations

from spectra_exp.measure import METRICS
from spectra_exp.measure.base import Direction
from spectra_exp.reporting.collect import DOWNSTREAM, INFERENCE, TRAINING_RULE

# Figures that belong to no routed layer, so that no metric object holds their direction.
OTHER: dict[str, Direction] = {
    "val_loss": "lower",
    "val_perplexity": "lower",
    "val_accuracy": "higher",
    "train_loss": "lower",
    "gap_closure": "higher",
    "tokens_per_second": "higher",
    "step_time_ms": "lower",
    "peak_memory_mb": "lower",
}


def direction(name: str) -> Direction:
    """lower, higher or none; a figure under another rule of routing has its metric's direction."""
    base = name.removesuffix(TRAINING_RULE).partition(INFERENCE)[0]
    if base in METRICS:
        return METRICS[base].direction
    if base.startswith(DOWNSTREAM):
        return "higher"
    of_all_domains = next((name for name in ("val_loss", "val_perplexity") if base.startswith(f"{name}_")), base)
    return OTHER.get(of_all_domains, "none")
