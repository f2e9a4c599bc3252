"""Gives a run up early when it would take longer than it may."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import TrainerCallback

from spectra_exp.foundations.collective import max_over_ranks
from spectra_exp.foundations.errors import NotRun
from spectra_exp.runs.limits import TIME

# Steps before the pace is believed, and the share of the run after which it is no longer given up.
FIRST_STEPS = 3
JUDGED_UNTIL = 0.1


class TimeBudget(TrainerCallback):
    """Raises NotRun when the pace of the first tenth says that all steps need more than `seconds`."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.first_step, self.since = state.global_step, time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.first_step:
            # The evaluation before the first step is no part of the pace.
            self.since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        made = state.global_step - self.first_step
        if made < FIRST_STEPS or state.global_step > max(FIRST_STEPS, JUDGED_UNTIL * state.max_steps):
            return
        pace_s = torch.tensor((time.monotonic() - self.since) / made, dtype=torch.float64)
        # All ranks give up, or none.
        needed = float(max_over_ranks(pace_s)) * state.max_steps
        if needed > self.seconds:
            raise NotRun(
                f"{state.max_steps} steps would take about {needed:,.0f} s, more than trainer.time_budget_s="
                f"{self.seconds:g}",
                TIME,
                self.seconds,
            )
