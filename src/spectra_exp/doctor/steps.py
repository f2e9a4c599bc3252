"""Optimizer steps as a training makes them: micro-batches, the optimizer with its hooks, and the callbacks after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from spectra_exp.doctor.examined import DoesNotApply, Examined


class Steps:
    """Steps on the small batch: a Trainer's loss, optimizer and callbacks, or, without one, what the model does itself.

    transformers' own callbacks, which write and report, are not called.
    """

    def __init__(self, x: Examined, trainer: Any, optimizer: torch.optim.Optimizer):
        self.x, self.trainer, self.optimizer = x, trainer, optimizer
        handler = getattr(trainer, "callback_handler", None)
        self.callbacks = [one for one in getattr(handler, "callbacks", []) if not _is_of_transformers(one)]

    def run(self, parts: int, look: Callable[[], None]) -> None:
        """One step of `parts` micro-batches; `look` is called after each pass and after the step."""
        x = self.x
        self._call("on_step_begin")
        for place, ids_BS in enumerate(x.ids_BS.chunk(parts)):
            x.begin()
            loss = self._loss(ids_BS) / parts
            look()
            # The backward pass may run blocks again.
            x.begin()
            loss.backward()
            look()
            if place + 1 < parts:
                self._call("on_substep_end")
        self._call("on_pre_optimizer_step")
        self.optimizer.step()
        self._call("on_optimizer_step")
        if x.own and self.trainer is None:
            x.model.after_optimizer_step(1.0)
        x.model.zero_grad()
        if self.trainer is not None:
            self.trainer.state.global_step += 1
        self._call("on_step_end")
        look()

    def _loss(self, ids_BS: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids_BS, "labels": ids_BS}
        if self.trainer is not None:
            return self.trainer.compute_loss(self.x.model, inputs)
        return self.x.model(**inputs, use_cache=False).loss

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            trainer = self.trainer
            named = {"model": self.x.model, "optimizer": self.optimizer}
            getattr(callback, event)(trainer.args, trainer.state, trainer.control, **named)


@contextmanager
def optimizer_steps(x: Examined) -> Iterator[Steps]:
    """Steps in training mode, by a copy of the trainer; its optimizer is afterwards what it was. Weights come back with
    `kept`. Raises DoesNotApply for a model of which nothing is trained."""
    trained = [p for p in x.model.parameters() if p.requires_grad]
    if not trained:
        raise DoesNotApply("no parameter is trained")
    trainer = copy.copy(x.trainer) if hasattr(x.trainer, "compute_loss") else None
    before = None
    if trainer is None:
        # Weights stay where they are, whatever the gradient is.
        optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)])
    else:
        # `kept` brings back which tensor a weight is, not what was done to it in place.
        for parameter in trained:
            parameter.data = parameter.data.clone()
        trainer.state, trainer.control = copy.copy(trainer.state), copy.copy(trainer.control)
        before = None if trainer.optimizer is None else copy.deepcopy(trainer.optimizer.state_dict())
        optimizer = trainer.optimizer or trainer.create_optimizer()
    with x.training():
        try:
            yield Steps(x, trainer, optimizer)
        finally:
            if before is not None:
                optimizer.load_state_dict(before)


def _is_of_transformers(callback: Any) -> bool:
    return type(callback).__module__.split(".")[0] == "transformers"
