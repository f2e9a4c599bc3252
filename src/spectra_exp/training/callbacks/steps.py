"""After each step: its loss, whether it diverged, and every so often the rows of the history."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from transformers import TrainerCallback

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.collective import mean_over_ranks
from spectra_exp.foundations.errors import Diverged
from spectra_exp.training.trainer import RoutingTrainer

log = logging.getLogger(__name__)


class Steps(TrainerCallback):
    """Raises Diverged when a step's loss is NaN, infinite or far above the loss at step 0."""

    # Given as soon as there is one, which is after its callbacks.
    trainer: RoutingTrainer

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._warned = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        recorder, step = self.trainer.recorder, state.global_step
        loss = recorder.end_step()
        self._check(loss, step, recorder.first_loss)
        self._warn_residual(recorder.max_residual, step)
        if recorder.due(step):
            model, optimizer = self.trainer.model, self.trainer.optimizer
            assert optimizer is not None
            rates = {f"learning_rate_{g['family']}": g["lr"] for g in optimizer.param_groups}
            row = recorder.write_training_row(step, self.trainer.norms | rates | _temperature(model))
            self.trainer.log(dict(row))

    def _check(self, loss: float, step: int, first_loss: float | None) -> None:
        limit = self.experiment.trainer.divergence_factor * first_loss if first_loss else math.inf
        if not math.isfinite(loss):
            raise Diverged(f"the loss of step {step} is {loss}")
        if loss > limit:
            raise Diverged(f"the loss of step {step} is {loss:.3f}, above trainer.divergence_factor times the first")

    def _warn_residual(self, residual: float, step: int) -> None:
        tolerance = getattr(self.experiment.osr, "sinkhorn_tolerance", math.inf)
        if residual > tolerance and not self._warned:
            self._warned = True
            log.warning(
                "step %d: Sinkhorn's column sums are off by up to %.2f of the target (osr.sinkhorn_tolerance=%g)",
                step,
                residual,
                tolerance,
            )


def _temperature(model: Any) -> dict[str, float]:
    from spectra_exp.routing.temperature import temperature_at

    if not model.routed_layers:
        return {}
    learned = [layer.router.learned_temperature for layer in model.routed_layers]
    if None not in learned:
        # The mean over tokens, experts and layers of the last pass.
        return {"temperature": float(mean_over_ranks(torch.stack([module.latest for module in learned]).mean()))}
    return {"temperature": temperature_at(model.settings.temperature, model.step, model.settings.total_steps)}
