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
LEAST_DRAWS = 20  # of each step, where tokens execute other numbers of experts at other steps


@dataclass(frozen=True)
class LayerTraining:
    """One layer's balance at the logged steps of the last half of training, oldest first."""

    num_experts: int
    tokens_per_step: int
    executed_T: np.ndarray  # mean number of experts that a token of each logged step executed
    max_vio_T: np.ndarray  # max_vio of each logged step's executed assignments


def layer_trainings(
    history: pd.DataFrame, max_steps: int, num_experts: int, top_k: int, tokens_per_step: int
) -> list[LayerTraining]:
    """One per routed layer, up to the last that logged its balance, from a run's history.

    `num_experts`: those that can be executed; `top_k`: what a token executed where the history does not say.
    """
    logged = history[(history["split"] == "train") & (history["layer"] != "all")]
    balance = logged[logged["metric"] == "max_vio_batch"]
    late = logged[2 * logged["step"] >= max_steps].sort_values("step")
    # A layer in which no token ever had an expert has no rows.
    layers = range(1 + max(map(int, balance["layer"].unique()), default=-1))
    found = []
    for layer in layers:
        own = late[late["layer"] == str(layer)]
        vio, executed = (
            own[own["metric"] == name].set_index("step")["value"] for name in ("max_vio_batch", "executed_k")
        )
        executed_T = executed.reindex(vio.index).fillna(top_k).to_numpy()
        found.append(LayerTraining(num_experts, tokens_per_step, executed_T, vio.to_numpy()))
    return found


@metric("max_vio_swing", "lower", range=(0, "E − 1"), reduction="steps", floor="uniform", margin=0.05)
def max_vio_swing(training: LayerTraining) -> float | None:
    """Mean absolute change of max_vio_batch between logged steps over the last half of training."""
    return _swing(training.max_vio_T) if len(training.max_vio_T) > 1 else None


def swing_floors(training: LayerTraining, seed: int = 0) -> dict[str, float]:
    """The swing of uniform random routing of as many tokens a step that execute as many experts as they did there;
    empty where there is no swing."""
    if max_vio_swing(training) is None:
        return {}
    steps = [_tokens_by_size(executed, training.tokens_per_step) for executed in training.executed_T.tolist()]
    if all(step == steps[0] for step in steps):
        return {
            "max_vio_swing": _swing(max_violation(uniform_counts(training.num_experts, steps[0], FLOOR_DRAWS, seed)))
        }
    draws = max(FLOOR_DRAWS // len(steps), LEAST_DRAWS)
    vio_TR = np.stack(
        [
            max_violation(uniform_counts(training.num_experts, step, draws, seed + index))
            for index, step in enumerate(steps)
        ]
    )
    return {"max_vio_swing": _swing(vio_TR)}


def _swing(vio_T: np.ndarray) -> float:
    return float(np.abs(np.diff(vio_T, axis=0)).mean())


def _tokens_by_size(executed: float, tokens: int) -> list[int]:
    """Tokens by the number of experts that they execute: the two whole numbers around the mean."""
    more = round((executed - int(executed)) * tokens)
    sizes = [*[0] * int(executed), tokens - more, more]
    return sizes if more else sizes[:-1]
