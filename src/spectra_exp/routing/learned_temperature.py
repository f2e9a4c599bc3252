"""Temperatures learned with the router: one for all layers, per layer, per expert, or per token (docs/method.md 4).

Shapes: N real tokens, E experts, d hidden size. A temperature is [N or 1, E or 1] and broadcasts over logits [N, E].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from spectra_exp.routing.base import RoutingInput

# No temperature falls below this: softplus underflows to 0, by which nothing can be divided.
LOWEST = 1e-3


class LearnedTemperature(nn.Module):
    """LOWEST + softplus(offset): one value, or one per expert; starts at `value`."""

    def __init__(self, size: int, value: float):
        super().__init__()
        self.value = value
        # Not named weight or bias: transformers, tying a module's, fits the one's length to the other's.
        self.offset = nn.Parameter(torch.empty(size))
        # Mean over tokens and experts in the last pass, for the history; nothing is computed from it.
        self.latest: Tensor | None = None

    def reset_parameters(self) -> None:
        """Start at `value`."""
        above = self.value - LOWEST
        nn.init.constant_(self.offset, above + math.log(-math.expm1(-above)))

    def forward(self, inputs: RoutingInput) -> Tensor:
        """The temperature of this pass."""
        temperature = LOWEST + softplus(self.logits(inputs))
        if len(temperature):
            self.latest = temperature.detach().mean()
        return temperature

    def logits(self, inputs: RoutingInput) -> Tensor:
        """What softplus makes a temperature of."""
        return self.offset[None]


class TokenTemperature(LearnedTemperature):
    """LOWEST + softplus(slope h + offset), from each token's hidden state; starts at `value` for every token."""

    def __init__(self, hidden_size: int, value: float):
        super().__init__(1, value)
        self.slope = nn.Parameter(torch.empty(hidden_size))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.slope)

    def logits(self, inputs: RoutingInput) -> Tensor:
        return (inputs.real(inputs.hidden_BSd) @ self.slope)[:, None] + self.offset


def make_learned_temperature(kind: str, value: float, hidden_size: int, num_experts: int) -> LearnedTemperature | None:
    """The module of `temperature.learned`; None for `none`. A global one is shared between the layers."""
    match kind:
        case "global" | "layer":
            return LearnedTemperature(1, value)
        case "expert":
            return LearnedTemperature(num_experts, value)
        case "token":
            return TokenTemperature(hidden_size, value)
    return None
