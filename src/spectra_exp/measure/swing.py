"""How much the balance swings from one logged step of training to the next.

Letters: E experts, T logged steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spectra_exp.measure.balance import max_violation
from spectra_exp.measure.base import metric
from spectra_exp.measure.nulls import uniform_counts

if TYPE_CHECKING:
    import pandas as pd

FLOOR_DRAWS = 400


@dataclass(frozen=True)
class LayerTraining:
    """One layer's balance at the logged steps of the last half of training, oldest first."""

    num_experts: int
    top_k: int
    tokens_per_step: int
    max_vio_T: np.ndarray  # max_vio of each logged step's executed assignments


def layer_trainings(
    history: pd.DataFrame, max_steps: int, num_experts: int, top_k: int, tokens_per_step: int
) -> list[LayerTraining]:
    """One per routed layer, up to the last that logged its balance, from a run's history."""
    logged = history[
        (history["split"] == "train") & (history["metric"] == "max_vio_batch") & (history["layer"] != "all")
    ]
    late = logged[2 * logged["step"] >= max_steps].sort_values("step")
    # A layer in which no token ever had an expert has no rows.
    layers = range(1 + max(map(int, logged["layer"].unique()), default=-1))
    shape = num_experts, top_k, tokens_per_step
    return [LayerTraining(*shape, late.loc[late["layer"] == str(layer), "value"].to_numpy()) for layer in layers]


@metric("max_vio_swing", "lower", range=(0, "E − 1"), reduction="steps", floor="uniform", margin=0.05)
def max_vio_swing(training: LayerTraining) -> float | None:
    """Mean absolute change of max_vio_batch between logged steps over the last half of training."""
    return float(np.abs(np.diff(training.max_vio_T)).mean()) if len(training.max_vio_T) > 1 else None


def swing_floors(training: LayerTraining, seed: int = 0) -> dict[str, float]:
    """The swing of uniform random routing of as many tokens a step; empty where there is no swing."""
    if max_vio_swing(training) is None:
        return {}
    tokens_by_size = [*[0] * training.top_k, training.tokens_per_step]
    vio_R = max_violation(uniform_counts(training.num_experts, tokens_by_size, FLOOR_DRAWS, seed))
    return {"max_vio_swing": float(np.abs(np.diff(vio_R)).mean())}
