"""SIGTERM and Ctrl-C: finish the step, write a checkpoint, stop."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from spectra_exp.foundations import stopping
from spectra_exp.foundations.collective import max_over_ranks


class StopOnSignal(TrainerCallback):
    """Ends training after the step in which a stop was asked for, on all ranks when one of them was."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        asked = bool(max_over_ranks(torch.tensor(int(stopping.asked() is not None))))
        if asked and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
