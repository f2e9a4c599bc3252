"""What every sequence encoder is: hidden states to routing vectors, token by token, never looking ahead.

Shapes: B sequences, S tokens each, d hidden size, E experts, D router dimension.
Each encoder maps hidden_BSd (float32) to vectors_BSED and hands on its state, so that decoding token by token
with a cache gives what one full pass gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class SequenceEncoder(nn.Module, ABC):
    """Base class; `recurrent` says whether the vectors of a token depend on earlier tokens.

    `fixed_state`: whether its state has one size whatever came before, so that another layer can start from it.
    """

    recurrent = False
    fixed_state = False

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__()
        self.num_experts, self.dim = num_experts, dim

    @abstractmethod
    def forward(self, hidden_BSd: Tensor, mask_BS: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Routing vectors [B, S, E, D] before normalising, and the state after the last real token.

        A state is [any, B, ...] (beam search reorders dimension 1); None for encoders without one.
        """

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw initial weights from the global random state."""

    def flops_per_token(self) -> float:
        return 2.0 * sum(p.numel() for p in self.parameters() if p.ndim >= 2)


def real_tokens_first(mask_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [B, S] that put each sequence's real tokens first, in order, and their number [B].

    Padding, wherever it stands, then never enters a recurrence before a real token.
    """
    order_BS = torch.sort((~mask_BS).to(torch.int8), dim=1, stable=True).indices
    return order_BS, mask_BS.sum(dim=1)


def reordered(values_BSx: Tensor, order_BS: Tensor) -> Tensor:
    """The tokens of each sequence in the given order."""
    return values_BSx.gather(1, order_BS[..., None].expand_as(values_BSx))


def restored(values_BSx: Tensor, order_BS: Tensor) -> Tensor:
    """The tokens of each sequence back where `reordered` took them from."""
    return torch.empty_like(values_BSx).scatter(1, order_BS[..., None].expand_as(values_BSx), values_BSx)
