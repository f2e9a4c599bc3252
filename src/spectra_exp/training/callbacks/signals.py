"""SIGTERM and Ctrl-C: finish the step, write a checkpoint, stop."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from spectra_exp import stopping


class StopOnSignal(TrainerCallback):
    """Ends training after the step in which a stop was asked for."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if stopping.asked() and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
