"""Changes to the routing that was decided, made before the experts run: what a trained model does without its choice.

Shapes: N real tokens of a batch, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spectra_exp.routing.selection import assignment_weights, position_hash


@dataclass(frozen=True)
class Routing:
    """One layer's decision over N tokens.

    chosen_NE: bool. weights_NE: combine weights, 0 where not chosen. scores_NE: what selection ranked. raw_NE: what
    the weights were taken from, for every expert. top_k: K.
    """

    chosen_NE: Tensor
    weights_NE: Tensor
    scores_NE: Tensor
    raw_NE: Tensor
    top_k: int


# Gives the assignments (bool [N, E]) and combine weights ([N, E]) that are executed instead.
Intervention = Callable[[Routing], tuple[Tensor, Tensor]]


class _Layer(Protocol):
    layer: int
    intervention: Intervention | None


class _Model(Protocol):
    """A model with routed layers, such as SpectraMoeForCausalLM."""

    training: bool

    @property
    def routed_layers(self) -> Sequence[_Layer]: ...


@contextmanager
def intervening(model: _Model, by_layer: Mapping[int, Intervention]) -> Iterator[None]:
    """A block in which the routed layers named execute what their intervention gives; records show that routing.

    Raises ValueError for a layer that the model lacks, in training mode, or inside another such block.
    """
    layers = {layer.layer: layer for layer in model.routed_layers}
    if unknown := sorted(set(by_layer) - set(layers)):
        raise ValueError(f"no routed layer {unknown[0]}; the model has {len(layers)}")
    if model.training:
        raise ValueError("interventions are for a model in evaluation mode")
    if any(layer.intervention is not None for layer in layers.values()):
        raise ValueError("another intervention is in force")
    try:
        for index, intervention in by_layer.items():
            layers[index].intervention = intervention
        yield
    finally:
        for layer in layers.values():
            layer.intervention = None


def swapped(first: int, second: int) -> Intervention:
    """Tokens of expert `first` go to `second`, and the other way round, with their weights."""

    def swap(routing: Routing) -> tuple[Tensor, Tensor]:
        order = torch.arange(routing.chosen_NE.shape[1], device=routing.chosen_NE.device)
        order[first], order[second] = second, first
        return routing.chosen_NE[:, order], routing.weights_NE[:, order]

    return swap


def switched_off(expert: int) -> Intervention:
    """The expert serves no token; the weights of a token's other experts grow to the token's former total.

    A token that had no other expert gets nothing from the layer.
    """

    def switch_off(routing: Routing) -> tuple[Tensor, Tensor]:
        chosen_NE, weights_NE = routing.chosen_NE.clone(), routing.weights_NE.clone()
        before_N1 = weights_NE.sum(dim=1, keepdim=True)
        chosen_NE[:, expert], weights_NE[:, expert] = False, 0.0
        left_N1 = weights_NE.sum(dim=1, keepdim=True)
        return chosen_NE, torch.where(left_N1 > 0, weights_NE * (before_N1 / left_N1.clamp_min(1e-20)), weights_NE)

    return switch_off


def next_best(tokens_N: Tensor) -> Intervention:
    """The tokens marked (bool [N]) go to as many experts as they had, the best-ranked of those not chosen.

    Where fewer are left they take those; a token that had every expert keeps them.
    """

    def pass_on(routing: Routing) -> tuple[Tensor, Tensor]:
        return _rerouted(routing, tokens_N, routing.scores_NE, routing.raw_NE)

    return pass_on


def arbitrary(tokens_N: Tensor, seed: int) -> Intervention:
    """The tokens marked (bool [N]) go to as many experts as they had, drawn evenly from those not chosen.

    What any other choice is worth: weights are equal and sum to what they did. The same seed draws the same experts.
    """

    def draw(routing: Routing) -> tuple[Tensor, Tensor]:
        num_tokens, num_experts = routing.chosen_NE.shape
        place_N = torch.arange(num_tokens, device=routing.chosen_NE.device) + seed * 1_000_003
        return _rerouted(routing, tokens_N, position_hash(place_N, num_experts), torch.ones_like(routing.raw_NE))

    return draw


def _rerouted(routing: Routing, tokens_N: Tensor, scores_NE: Tensor, raw_NE: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens marked take the best-scored experts not chosen, as many as they had, with weights from `raw_NE`."""
    scores_NE = scores_NE.masked_fill(routing.chosen_NE, -torch.inf)
    size_N1 = routing.chosen_NE.sum(dim=1, keepdim=True)
    order_NE = scores_NE.argsort(dim=1, descending=True, stable=True)
    rank_NE = torch.empty_like(order_NE).scatter_(
        1, order_NE, torch.arange(order_NE.shape[1], device=order_NE.device).expand_as(order_NE)
    )
    taken_NE = (rank_NE < size_N1) & ~routing.chosen_NE
    mark_N1 = tokens_N[:, None] & taken_NE.any(dim=1, keepdim=True)
    chosen_NE = torch.where(mark_N1, taken_NE, routing.chosen_NE)
    # Summing to what the token's weights summed to: at K = 1 a lower probability would also shrink the output.
    shares_NE = assignment_weights(raw_NE, taken_NE, normalize=True)
    weights_NE = shares_NE * routing.weights_NE.sum(dim=1, keepdim=True)
    return chosen_NE, torch.where(mark_N1, weights_NE, routing.weights_NE)
