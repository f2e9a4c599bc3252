"""Encoders that see one token alone."""

from __future__ import annotations

from torch import nn

from spectra_exp.routing.sequence.base import SequenceEncoder


class LinearEncoder(SequenceEncoder):
    """One linear map per token to all E vectors: no state."""

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.linear = nn.Linear(hidden_size, num_experts * dim, bias=False)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, hidden_BSd, mask_BS, state):
        return self.linear(hidden_BSd).unflatten(-1, (self.num_experts, self.dim)), None


class SharedLinearEncoder(SequenceEncoder):
    """One vector per token, the same for every expert: no state."""

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.linear = nn.Linear(hidden_size, dim, bias=False)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, hidden_BSd, mask_BS, state):
        shared_BSD = self.linear(hidden_BSd)
        return shared_BSD[..., None, :].expand(-1, -1, self.num_experts, -1), None
