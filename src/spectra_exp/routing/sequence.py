"""Sequence encoders: hidden states to routing vectors, token by token, never looking ahead.

Shapes: B sequences, S tokens each, d hidden size, E experts, D router dimension.
Each encoder maps hidden_BSd (float32) to vectors_BSED and hands on its state, so that decoding token by token
with a cache gives what one full pass gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class SequenceEncoder(nn.Module, ABC):
    """Base class; `recurrent` says whether the vectors of a token depend on earlier tokens."""

    recurrent = False

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__()
        self.hidden_size, self.num_experts, self.dim = hidden_size, num_experts, dim

    @abstractmethod
    def forward(self, hidden_BSd: Tensor, mask_BS: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Routing vectors [B, S, E, D] before normalising, and the state after the last real token (None if none)."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw initial weights from the global random state."""

    def flops_per_token(self) -> float:
        return 2.0 * sum(p.numel() for p in self.parameters() if p.ndim == 2)


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
        return self.linear(hidden_BSd)[..., None, :].expand(-1, -1, self.num_experts, -1), None


class GruEncoder(SequenceEncoder):
    """One GRU of hidden size E*D, as the paper draws it: the recurrent matrix is dense, at a cost of 3 (E*D)^2.

    Xavier-uniform input weights, orthogonal recurrent weights (each gate's on its own), zero biases and state.
    *Source:* METHOD 1.1; Cho et al. 2014.
    """

    recurrent = True

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.gru = nn.GRU(hidden_size, num_experts * dim, batch_first=True)

    def reset_parameters(self) -> None:
        for gate in self.gru.weight_ih_l0.data.chunk(3):
            nn.init.xavier_uniform_(gate)
        for gate in self.gru.weight_hh_l0.data.chunk(3):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.gru.bias_ih_l0)
        nn.init.zeros_(self.gru.bias_hh_l0)

    def forward(self, hidden_BSd, mask_BS, state):
        if mask_BS is None:
            vectors, last = self.gru(hidden_BSd, state)
            return vectors.unflatten(-1, (self.num_experts, self.dim)), last
        order_BS, length_B = real_tokens_first(mask_BS)
        index = order_BS[..., None]
        vectors, _ = self.gru(hidden_BSd.gather(1, index.expand_as(hidden_BSd)), state)
        last = self._state_after(vectors, length_B, state)
        vectors = torch.empty_like(vectors).scatter(1, index.expand_as(vectors), vectors)
        return vectors.unflatten(-1, (self.num_experts, self.dim)), last

    @staticmethod
    def _state_after(vectors: Tensor, length_B: Tensor, state: Tensor | None) -> Tensor:
        """State after each sequence's last real token; a sequence without one keeps the state it came with."""
        before = vectors.new_zeros(vectors.shape[0], vectors.shape[2]) if state is None else state[0]
        at = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, vectors.shape[2])
        return torch.where((length_B > 0)[:, None], vectors.gather(1, at)[:, 0], before)[None]


def real_tokens_first(mask_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [B, S] that put each sequence's real tokens first, in order, and their number [B].

    Padding, wherever it stands, then never enters a recurrence before a real token.
    """
    order_BS = torch.sort((~mask_BS).to(torch.int8), dim=1, stable=True).indices
    return order_BS, mask_BS.sum(dim=1)


ENCODERS: dict[str, type[SequenceEncoder]] = {
    "gru": GruEncoder,
    "linear": LinearEncoder,
    "shared_linear": SharedLinearEncoder,
}
