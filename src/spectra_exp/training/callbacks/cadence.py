"""When a run is evaluated and when it writes a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from spectra_exp.config.schema import TrainerConfig
from spectra_exp.training.fractions import fraction_steps


class Cadence(TrainerCallback):
    """Evaluates before the first step, at the fractions and every `eval_every`; the last step is the session's.

    Must come after the callbacks that write rows and before the one that stops on signals.
    """

    def __init__(self, config: TrainerConfig, evaluate: Callable[[int], object]):
        self.config, self.evaluate = config, evaluate
        self.fractions = set(fraction_steps(config.max_steps))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.evaluate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step < self.config.max_steps and (step in self.fractions or self._every(self.config.eval_every, step)):
            self.evaluate(step)
        if step in self.fractions or self._every(self.config.checkpoint_every, step):
            control.should_save = True

    @staticmethod
    def _every(period: int, step: int) -> bool:
        return period > 0 and step % period == 0
