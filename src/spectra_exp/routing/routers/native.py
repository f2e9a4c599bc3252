"""The router that a sparse model came with, kept for comparison; only `model=reroute` has one to keep.

Shapes: N real tokens, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spectra_exp.foundations.options import option
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, register_router


@dataclass
class NativeConfig(RouterConfig):
    """The source's router has no options of its own."""

    name: str = option("native", "which router this is")


@register_router
class NativeRouter(Router):
    """Hands on what the source's own gate says: its experts, its weights, its logits."""

    Config = NativeConfig
    gate: Any
    needs_source = True
    decides = True

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: NativeConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.sigmoid = False
        self.register_module("gate", None)

    def take(self, gate: nn.Module, sigmoid: bool) -> None:
        """Keep `gate`, called on [N, d] and giving (logits [N, E], weights [N, K], experts [N, K])."""
        self.gate, self.sigmoid = gate, sigmoid

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE, chosen_NK, experts_NK = self.gate(inputs.real(inputs.hidden_BSd))
        logits_NE, empty_NE = logits_NE.float(), torch.zeros_like(logits_NE, dtype=torch.float32)
        # Between 1 and 2 for the experts that the gate chose and 0 for the rest, whatever rule it chose them by.
        scores_NE = empty_NE.scatter(1, experts_NK, 1.0 + chosen_NK.detach().float().clamp(0, 1))
        weights_NE = empty_NE.scatter(1, experts_NK, chosen_NK.float())
        own_NE = nn.functional.logsigmoid(logits_NE) if self.sigmoid else logits_NE
        return RouterOutput(scores_NE, weights_NE, torch.softmax(own_NE, dim=-1), logits_NE, self.gate.weight)
