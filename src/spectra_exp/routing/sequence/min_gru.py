"""A recurrence whose gates see the input alone, so that a parallel scan replaces the loop over tokens.

Shapes: B sequences, S tokens each, d hidden size, E experts, D router dimension, W = E D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spectra_exp.foundations.kernels import PLAIN
from spectra_exp.routing.sequence.base import SequenceEncoder
from spectra_exp.routing.sequence.recurrence import recurrence

# A token's own part at the start is sigmoid(2) = 0.88; from 0.5 runs left their first plateau later and worse
# (docs/results/speed.md).
GATE_BIAS = 2.0


SPREADS = ("none", "experts", "dimensions")


@dataclass(frozen=True)
class GateBiases:
    """First biases of the gates: all `high`, or evenly from `high` to `low` over experts or over dimensions."""

    high: float = GATE_BIAS
    low: float = -1.0
    spread: str = "none"

    def values_ED(self, num_experts: int, dim: int) -> Tensor:
        """One bias per channel, [E, D]."""
        match self.spread:
            case "experts":
                return torch.linspace(self.high, self.low, num_experts)[:, None].expand(-1, dim)
            case "dimensions":
                return torch.linspace(self.high, self.low, dim).expand(num_experts, -1)
        return torch.full((num_experts, dim), self.high)


class MinGruEncoder(SequenceEncoder):
    """z = sigmoid(W_z x + b_z), n = W_h x + b_h, h_t = (1 - z_t) h_{t-1} + z_t n_t; the state is [1, B, E*D].

    Xavier-uniform weights, zero state, b_h = 0; b_z starts as `gates` has it. *Source:* Feng et al. 2024
    (Were RNNs all we needed?), 3.1. *Departs:* from the appendix's log-space scan, which needs positive n; this scan
    takes n of either sign.
    """

    recurrent = fixed_state = True
    kernel = PLAIN

    def __init__(self, hidden_size: int, num_experts: int, dim: int, gates: GateBiases = GateBiases()):
        super().__init__(hidden_size, num_experts, dim)
        self.gates = gates
        self.gate = nn.Linear(hidden_size, num_experts * dim)
        self.candidate = nn.Linear(hidden_size, num_experts * dim)

    def reset_parameters(self) -> None:
        for linear in (self.gate, self.candidate):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.gate.bias.copy_(self.gates.values_ED(self.num_experts, self.dim).flatten())

    def forward(self, hidden_BSd, mask_BS, state):
        logits_BSW = self.gate(hidden_BSd)
        # sigmoid(-x) is 1 - sigmoid(x) without cancellation.
        keep_BSW, add_BSW = torch.sigmoid(-logits_BSW), torch.sigmoid(logits_BSW) * self.candidate(hidden_BSd)
        first_BW = None if state is None else state[0]
        vectors_BSW = recurrence(keep_BSW, add_BSW, mask_BS, first_BW, self.kernel)
        return vectors_BSW.unflatten(-1, (self.num_experts, self.dim)), vectors_BSW[:, -1][None]
