"""A recurrence whose gates see the input alone, so that a parallel scan replaces the loop over tokens.

Shapes: B sequences, S tokens each, d hidden size, E experts, D router dimension, W = E D channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spectra_exp.routing.sequence.base import SequenceEncoder

# A token's own part at the start is sigmoid(2) = 0.88; from 0.5 runs left their first plateau later and worse
# (docs/results/speed.md).
GATE_BIAS = 2.0


def scan(keep_BSW: Tensor, add_BSW: Tensor) -> Tensor:
    """h [B, S, W] of h_t = keep_t h_{t-1} + add_t from h = 0, in O(log S) parallel steps and O(S) work.

    Neighbours are merged in pairs, the half as long sequence is scanned, and the steps between are filled in. Only
    products of `keep` are formed, never quotients: with keep in [0, 1] nothing overflows, and what underflows is
    negligible. *Source:* Blelloch 1990 (Prefix sums and their applications).
    """
    length = keep_BSW.shape[1]
    if length == 1:
        return add_BSW
    even = length - length % 2
    keep_even, keep_odd = keep_BSW[:, 0:even:2], keep_BSW[:, 1:even:2]
    at_odd = scan(keep_odd * keep_even, keep_odd * add_BSW[:, 0:even:2] + add_BSW[:, 1:even:2])
    at_even = add_BSW[:, 0::2].clone()
    at_even[:, 1:] += keep_BSW[:, 2::2] * at_odd[:, : at_even.shape[1] - 1]
    result = torch.empty_like(add_BSW)
    result[:, 0::2], result[:, 1::2] = at_even, at_odd
    return result


class LinearRecurrence(torch.autograd.Function):
    """h_t = keep_t h_{t-1} + add_t from h = 0, with a gradient that is one more scan, run backwards.

    The gradient g_t of h_t is what comes in at t plus keep_{t+1} g_{t+1}; then d add_t = g_t, d keep_t = g_t h_{t-1}.
    Only keep and h are kept for it, so memory is linear in S.
    """

    @staticmethod
    def forward(ctx: Any, keep_BSW: Tensor, add_BSW: Tensor) -> Tensor:
        hidden_BSW = scan(keep_BSW, add_BSW)
        ctx.save_for_backward(keep_BSW, hidden_BSW)
        return hidden_BSW

    @staticmethod
    def backward(ctx: Any, incoming_BSW: Tensor) -> tuple[Tensor, Tensor]:
        keep_BSW, hidden_BSW = ctx.saved_tensors
        later_BSW = nn.functional.pad(keep_BSW[:, 1:], (0, 0, 0, 1))
        gradient = LinearRecurrence.apply(later_BSW.flip(1), incoming_BSW.flip(1)).flip(1)
        earlier_BSW = nn.functional.pad(hidden_BSW[:, :-1], (0, 0, 1, 0))
        return gradient * earlier_BSW, gradient


class MinGruEncoder(SequenceEncoder):
    """z = sigmoid(W_z x + b_z), n = W_h x + b_h, h_t = (1 - z_t) h_{t-1} + z_t n_t; the state is [1, B, E*D].

    Xavier-uniform weights, zero state, b_h = 0; b_z starts at GATE_BIAS. *Source:* Feng et al. 2024
    (Were RNNs all we needed?), 3.1. *Departs:* from the appendix's log-space scan, which needs positive n; this scan
    takes n of either sign.
    """

    recurrent = fixed_state = True

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.gate = nn.Linear(hidden_size, num_experts * dim)
        self.candidate = nn.Linear(hidden_size, num_experts * dim)

    def reset_parameters(self) -> None:
        for linear in (self.gate, self.candidate):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.constant_(self.gate.bias, GATE_BIAS)

    def forward(self, hidden_BSd, mask_BS, state):
        logits_BSW = self.gate(hidden_BSd)
        # sigmoid(-x) is 1 - sigmoid(x) without cancellation.
        keep_BSW, add_BSW = torch.sigmoid(-logits_BSW), torch.sigmoid(logits_BSW) * self.candidate(hidden_BSd)
        if mask_BS is not None:
            # Padding leaves the state as it is.
            keep_BSW = keep_BSW.masked_fill(~mask_BS[..., None], 1.0)
            add_BSW = add_BSW.masked_fill(~mask_BS[..., None], 0.0)
        if state is not None:
            first = add_BSW[:, :1] + keep_BSW[:, :1] * state[0, :, None]
            add_BSW = torch.cat([first, add_BSW[:, 1:]], dim=1)
        vectors_BSW = LinearRecurrence.apply(keep_BSW, add_BSW)
        return vectors_BSW.unflatten(-1, (self.num_experts, self.dim)), vectors_BSW[:, -1][None]
