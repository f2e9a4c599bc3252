"""After the last optimizer step: load-driven state settles over training batches, the weights at rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from spectra_exp.foundations.collective import all_rows, total_over_ranks
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.model import SpectraMoeForCausalLM


class Settle(TrainerCallback):
    """Runs before the last checkpoint is written and evaluated, so that both hold the settled state.

    During training the state answers the load with a lag and with the noise of single batches; neither is left where
    nothing moves but itself.
    """

    def __init__(self, max_steps: int, route: Callable[[int, RoutingContext], Any]):
        """`route(i, context)`: routes this rank's training batch i and fills the context."""
        self.max_steps, self.route = max_steps, route

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step + 1 == self.max_steps:
            settle(model, self.route, self.max_steps)


@torch.no_grad()
def settle(model: SpectraMoeForCausalLM, route: Callable[[int, RoutingContext], Any], trained: int) -> int:
    """How many batches the routers settled over: as many as they want after so many steps of training.

    Neither a weight nor a running average moves.
    """
    wanted = max((layer.router.settle_steps(trained) for layer in model.routed_layers), default=0)
    was_training = model.training
    model.eval()
    if any(layer.router.fits_costs for layer in model.routed_layers):
        fit_layers(model, route, wanted)
    else:
        settle_batches(model, route, wanted)
    model.train(was_training)
    return wanted


def fit_layers(model: SpectraMoeForCausalLM, route: Callable[[int, RoutingContext], Any], batches: int) -> None:
    """Fit each layer's routers to its costs of all batches, from the bottom up, on hidden states that the fitted layers
    below make: as many passes over the batches as there are layers."""
    for layer in model.routed_layers:
        costs = []
        for index in range(batches):
            # Under the rule of inference, whose load it is to balance.
            context = RoutingContext(keep_tensors=True)
            route(index, context)
            costs.append(context.tensors[layer.layer]["cost"])
        if costs:
            layer.router.fit(all_rows(torch.cat(costs)))


def settle_batches(model: SpectraMoeForCausalLM, route: Callable[[int, RoutingContext], Any], batches: int) -> None:
    """Let every router answer the load of one batch after another."""
    for index in range(batches):
        context = RoutingContext(training_rule=True, shared=True)
        route(index, context)
        for layer in model.routed_layers:
            counts_E = total_over_ranks(context.updates[layer.layer]["load_counts"])
            layer.router.settle(counts_E, index + 1)
