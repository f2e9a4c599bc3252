"""E independent GRUs of width D that read the same input: a GRU whose recurrent matrix is block-diagonal.

Shapes: B sequences, S tokens each, d hidden size, E experts, D router dimension, M experts of one kernel call.
Gates: reset, update, new.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_exp.routing.sequence.base import SequenceEncoder, real_tokens_first, reordered, restored
from spectra_exp.routing.sequence.rnn import state_after

# Channels of one kernel call. Wider calls are fewer, but multiply more zeros: the work grows with the width, and this
# was fastest or near it on a CPU from 8 x 16 to 32 x 32 channels.
CALL_WIDTH = 256


class BlockGruEncoder(SequenceEncoder):
    """The paper's O(d E D) recurrence: expert i's vector is the state of a GRU of its own; the state is [E, B, D].

    Several experts share a call of torch's own GRU kernel, whose recurrent matrix then has a block for each: nothing
    loops over tokens here. Initial weights as for `gru`, each expert's gate on its own. *Source:* docs/method.md 1.1;
    Cho et al. 2014.
    """

    recurrent = fixed_state = True

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.input = nn.Linear(hidden_size, num_experts * 3 * dim)
        self.recurrent_weight = nn.Parameter(torch.empty(num_experts, 3 * dim, dim))
        self.recurrent_bias = nn.Parameter(torch.empty(num_experts * 3 * dim))

    def reset_parameters(self) -> None:
        for gate in self.input.weight.data.chunk(3 * self.num_experts):
            nn.init.xavier_uniform_(gate)
        for gate in self.recurrent_weight.data.flatten(0, 1).chunk(3 * self.num_experts):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.input.bias)
        nn.init.zeros_(self.recurrent_bias)

    def forward(self, hidden_BSd, mask_BS, state):
        if mask_BS is None:
            vectors_BSED = self._recurrence(hidden_BSd, state)
            return vectors_BSED, vectors_BSED[:, -1].transpose(0, 1)
        order_BS, length_B = real_tokens_first(mask_BS)
        vectors_BSW = self._recurrence(reordered(hidden_BSd, order_BS), state).flatten(2)
        before = None if state is None else state.transpose(0, 1).flatten(1)
        last_BW = state_after(vectors_BSW, length_B, before)
        shape = (self.num_experts, self.dim)
        return restored(vectors_BSW, order_BS).unflatten(-1, shape), last_BW.unflatten(-1, shape).transpose(0, 1)

    def _recurrence(self, hidden_BSd: Tensor, state_EBD: Tensor | None) -> Tensor:
        """The states after each token, [B, S, E, D]."""
        if state_EBD is None:
            state_EBD = hidden_BSd.new_zeros(self.num_experts, hidden_BSd.shape[0], self.dim)
        together = max(1, CALL_WIDTH // self.dim)
        by_gate = (self.num_experts, 3, self.dim)
        parts = (
            self.input.weight.view(*by_gate, -1),
            self.recurrent_weight.view(*by_gate, self.dim),
            self.input.bias.view(by_gate),
            self.recurrent_bias.view(by_gate),
            state_EBD,
        )
        calls = zip(*(part.split(together) for part in parts), strict=True)
        return torch.cat([self._call(hidden_BSd, *call) for call in calls], dim=2)

    @staticmethod
    def _call(
        hidden_BSd: Tensor,
        input_M3Dd: Tensor,
        recurrent_M3DD: Tensor,
        input_bias_M3D: Tensor,
        recurrent_bias_M3D: Tensor,
        state_MBD: Tensor,
    ) -> Tensor:
        """States of M experts, [B, S, M, D], by one dense GRU of width M D with zeros off its blocks."""
        m, _, dim = input_bias_M3D.shape
        eye_MM = torch.eye(m, dtype=hidden_BSd.dtype, device=hidden_BSd.device)
        recurrent = torch.einsum("ab,agij->gaibj", eye_MM, recurrent_M3DD).reshape(3 * m * dim, m * dim)
        weights = [
            input_M3Dd.transpose(0, 1).reshape(3 * m * dim, -1),
            recurrent,
            input_bias_M3D.transpose(0, 1).reshape(-1),
            recurrent_bias_M3D.transpose(0, 1).reshape(-1),
        ]
        first = state_MBD.transpose(0, 1).reshape(1, -1, m * dim)
        # Dropout between layers is 0 and there is one layer, so `train` changes nothing but keeps what backward needs.
        vectors, _ = torch.gru(
            hidden_BSd,
            first,
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=True,
            bidirectional=False,
            batch_first=True,
        )
        return vectors.unflatten(-1, (m, dim))
