"""Keeps the model's schedules at the step in progress, and lets routers answer each step's load."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from spectra_exp.config.schema import OptimConfig
from spectra_exp.foundations.collective import own_rank
from spectra_exp.moe.initial_weights import seed_from
from spectra_exp.training.optimizers import rate_factor
from spectra_exp.training.recorder import Recorder


class Clock(TrainerCallback):
    """Temperatures, warm-ups, routing noise, potentials and biases move here, once per optimizer step."""

    def __init__(self, optim: OptimConfig, max_steps: int, recorder: Recorder):
        self.optim, self.max_steps, self.recorder = optim, max_steps, recorder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if own_rank():
            # Dropout of its own: Trainer has given all ranks one seed. A resumed run gets its states back after this.
            torch.manual_seed(seed_from(args.seed, own_rank()))

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.set_step(state.global_step)
        self.recorder.begin_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.after_optimizer_step(rate_factor(state.global_step, self.max_steps, self.optim))
