"""Blocks packed of several documents, kept apart: neither attention nor recurrence crosses from one to the next.

Shapes: B sequences, S tokens each, G stretches (one document's tokens in one sequence), T tokens of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Stretches:
    """Where each token of [B, S] lies when every stretch is a row of its own.

    position_BS: place within the stretch. row_BS: the stretch. mask_GT: True where a row has a token.
    """

    position_BS: Tensor
    row_BS: Tensor
    mask_GT: Tensor

    @classmethod
    def of(cls, document_ids_BS: Tensor) -> Stretches:
        """The stretches of packed blocks; a document that comes back later in a block starts anew."""
        starts_BS = torch.ones_like(document_ids_BS, dtype=torch.bool)
        starts_BS[:, 1:] = document_ids_BS[:, 1:] != document_ids_BS[:, :-1]
        row_BS = starts_BS.flatten().cumsum(0).view_as(starts_BS) - 1
        place_S = torch.arange(document_ids_BS.shape[1], device=document_ids_BS.device)
        first_BS = torch.where(starts_BS, place_S, 0).cummax(dim=1).values
        position_BS = place_S - first_BS
        lengths_G = torch.bincount(row_BS.flatten())
        mask_GT = torch.arange(int(lengths_G.max()), device=row_BS.device) < lengths_G[:, None]
        return cls(position_BS, row_BS, mask_GT)

    def split(self, values_BSx: Tensor) -> Tensor:
        """The values as [G, T, ...], zero where a row has no token."""
        rows = values_BSx.new_zeros(*self.mask_GT.shape, *values_BSx.shape[2:])
        # Row-major on both sides: the True places of the mask are the tokens in reading order.
        rows[self.mask_GT] = values_BSx.flatten(0, 1)
        return rows

    def join(self, values_GTx: Tensor) -> Tensor:
        """The inverse of `split`, [B, S, ...]."""
        return values_GTx[self.mask_GT].unflatten(0, self.row_BS.shape)

    def attention_mask(self) -> Tensor:
        """Which token may attend to which, bool [B, 1, S, S]: earlier ones (and itself) of the same stretch."""
        same = self.row_BS[:, :, None] == self.row_BS[:, None, :]
        return same.tril()[:, None]
