"""Encoders with one dense recurrence of width E*D: GRU and LSTM.

Shapes: B sequences, S tokens each, E experts, D router dimension, W = E D.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from spectra_exp.routing.sequence.base import SequenceEncoder, real_tokens_first, reordered, restored


def reset_gates(rnn: nn.RNNBase, num_gates: int) -> None:
    """Xavier-uniform input weights and orthogonal recurrent weights, each gate's on its own; zero biases."""
    input_weight, recurrent_weight, *biases = rnn.all_weights[0]
    for gate in input_weight.data.chunk(num_gates):
        nn.init.xavier_uniform_(gate)
    for gate in recurrent_weight.data.chunk(num_gates):
        nn.init.orthogonal_(gate)
    for bias in biases:
        nn.init.zeros_(bias)


def state_after(vectors_BSW: Tensor, length_B: Tensor, before_BW: Tensor | None) -> Tensor:
    """The vector [B, W] of each sequence's last real token, those standing first; without one, what it came with."""
    before_BW = torch.zeros_like(vectors_BSW[:, 0]) if before_BW is None else before_BW
    at = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, vectors_BSW.shape[2])
    return torch.where((length_B > 0)[:, None], vectors_BSW.gather(1, at)[:, 0], before_BW)


class GruEncoder(SequenceEncoder):
    """One GRU of hidden size E*D, as the paper draws it: the recurrent matrix is dense, at a cost of 3 (E*D)^2.

    Xavier-uniform input weights, orthogonal recurrent weights (each gate's on its own), zero biases and state.
    *Source:* docs/method.md 1.1; Cho et al. 2014.
    """

    recurrent = fixed_state = True

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.gru = nn.GRU(hidden_size, num_experts * dim, batch_first=True)

    def reset_parameters(self) -> None:
        reset_gates(self.gru, 3)

    def forward(self, hidden_BSd, mask_BS, state):
        if mask_BS is None:
            vectors, last = self.gru(hidden_BSd, state)
            return vectors.unflatten(-1, (self.num_experts, self.dim)), last
        order_BS, length_B = real_tokens_first(mask_BS)
        vectors, _ = self.gru(reordered(hidden_BSd, order_BS), state)
        last = state_after(vectors, length_B, None if state is None else state[0])[None]
        return restored(vectors, order_BS).unflatten(-1, (self.num_experts, self.dim)), last


class LstmEncoder(SequenceEncoder):
    """One LSTM of hidden size E*D; the state is [2, B, E*D], outputs then cells.

    Initial weights as for the GRU. *Source:* Hochreiter and Schmidhuber 1997, with a forget gate (Gers et al. 2000).
    """

    recurrent = fixed_state = True

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.lstm = nn.LSTM(hidden_size, num_experts * dim, batch_first=True)

    def reset_parameters(self) -> None:
        reset_gates(self.lstm, 4)

    def forward(self, hidden_BSd, mask_BS, state):
        pair = None if state is None else (state[:1].contiguous(), state[1:].contiguous())
        if mask_BS is None:
            vectors, last = self.lstm(hidden_BSd, pair)
            return vectors.unflatten(-1, (self.num_experts, self.dim)), torch.cat(last)
        order_BS, length_B = real_tokens_first(mask_BS)
        # Packing stops each sequence at its last real token, which gives the cell there; no length may be 0.
        packed = pack_padded_sequence(
            reordered(hidden_BSd, order_BS), length_B.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        packed, last = self.lstm(packed, pair)
        vectors, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask_BS.shape[1])
        before = torch.zeros_like(torch.cat(last)) if state is None else state
        after = torch.where((length_B > 0)[None, :, None], torch.cat(last), before)
        return restored(vectors, order_BS).unflatten(-1, (self.num_experts, self.dim)), after
