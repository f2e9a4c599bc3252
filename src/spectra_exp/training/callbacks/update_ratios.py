"""How far the optimizer moved each family of parameters, relative to their size, at the steps that are written down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from spectra_exp.foundations.collective import whole
from spectra_exp.training.optimizers import named_families
from spectra_exp.training.recorder import Recorder
from spectra_exp.training.trainer import RoutingTrainer


class UpdateRatios(TrainerCallback):
    """Adds `update_ratio_<family>` = ‖Δw‖ / ‖w‖, w before the step, to the trainer's figures of a due step.

    The weights are copied at due steps alone. It stands before the callbacks that themselves move parameters.
    """

    # Given as soon as there is one, which is after its callbacks.
    trainer: RoutingTrainer

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self._before: dict[str, list[Tensor]] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        # DeepSpeed steps in the backward pass, before Trainer speaks of it.
        if args.deepspeed and self.recorder.due(state.global_step + 1):
            self._before = copied_families(model)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not args.deepspeed and self.recorder.due(state.global_step + 1):
            self._before = copied_families(model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self._before:
            self.trainer.norms |= update_ratios(self._before, model)
            self._before = {}


@torch.no_grad()
def copied_families(model: nn.Module) -> dict[str, list[Tensor]]:
    """A copy of every trained parameter, by family."""
    return {
        family: [whole(parameter).clone() for _, parameter in named] for family, named in named_families(model).items()
    }


@torch.no_grad()
def update_ratios(before: dict[str, list[Tensor]], model: nn.Module) -> dict[str, float]:
    """‖Δw‖ / ‖w‖ by family as `update_ratio_router` and so on; a family of zeros, or without parameters, is absent."""
    found = {}
    for family, named in named_families(model).items():
        moved = _norm([whole(new) - old for (_, new), old in zip(named, before[family], strict=True)])
        size = _norm(before[family])
        if size > 0:
            found[f"update_ratio_{family}"] = moved / size
    return found


def _norm(tensors: list[Tensor]) -> float:
    norms = [t.float().norm() for t in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
