"""E independent GRUs of width D that read the same input: a GRU whose recurrent matrix is block-diagonal.

Shapes: B sequences, S tokens each, d hidden size, E experts, D router dimension, G = 3 D gates (reset, update, new).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_exp.routing.sequence.base import SequenceEncoder, without_padding


class BlockGruEncoder(SequenceEncoder):
    """The paper's O(d E D) recurrence: expert i's vector is the state of a GRU of its own; the state is [E, B, D].

    One product for the inputs of all tokens, then one batched step over all experts and sequences per token.
    Initial weights as for `gru`, each expert's gate on its own. *Source:* docs/method.md 1.1; Cho et al. 2014.
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
        inputs_BSEG = self.input(without_padding(hidden_BSd, mask_BS)).unflatten(-1, (self.num_experts, -1))
        now_EBD = state
        if now_EBD is None:
            now_EBD = hidden_BSd.new_zeros(self.num_experts, hidden_BSd.shape[0], self.dim)
        weight_EDG = self.recurrent_weight.mT
        bias_E1G = self.recurrent_bias.view(self.num_experts, 1, 3 * self.dim)
        steps = []
        for time, inputs_EBG in enumerate(inputs_BSEG.permute(1, 2, 0, 3).contiguous().unbind(0)):
            gates_EBG = torch.baddbmm(bias_E1G, now_EBD, weight_EDG)
            next_EBD = self._step(inputs_EBG, gates_EBG, now_EBD)
            # Padding leaves the state as it is.
            now_EBD = next_EBD if mask_BS is None else torch.where(mask_BS[:, time, None], next_EBD, now_EBD)
            steps.append(now_EBD)
        return torch.stack(steps).permute(2, 0, 1, 3), now_EBD

    def _step(self, inputs_EBG: Tensor, gates_EBG: Tensor, now_EBD: Tensor) -> Tensor:
        """The next state: h' = (1 - z) n + z h."""
        d = self.dim
        reset, update = torch.sigmoid(inputs_EBG[..., : 2 * d] + gates_EBG[..., : 2 * d]).chunk(2, dim=-1)
        new = torch.tanh(inputs_EBG[..., 2 * d :] + reset * gates_EBG[..., 2 * d :])
        return new + update * (now_EBD - new)
