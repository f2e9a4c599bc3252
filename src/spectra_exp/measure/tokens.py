"""The real tokens of a batch, flattened in the order in which the routed layers see them.

Letters: B sequences, S tokens each, N real (non-padding) tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class TokenBatch:
    """Who each real token is: int64 tensors of shape [N], row by row through the batch."""

    token_ids_N: Tensor  # vocabulary ids
    document_ids_N: Tensor  # 0..num_documents-1, over the whole evaluation set
    domain_ids_N: Tensor  # 0..num_domains-1; -1 where the domain is not known
    sequence_ids_N: Tensor  # the token's sequence in the batch, from 0: its row, or a document's part of one

    @classmethod
    def from_padded(
        cls, token_ids_BS: Tensor, real_BS: Tensor, document_ids_BS: Tensor, domain_ids_BS: Tensor
    ) -> TokenBatch:
        """The batch's real tokens (`real_BS` non-zero), row by row."""
        real_BS = real_BS.bool()
        return cls(
            token_ids_N=token_ids_BS[real_BS],
            document_ids_N=document_ids_BS[real_BS],
            domain_ids_N=domain_ids_BS[real_BS],
            sequence_ids_N=real_BS.nonzero()[:, 0],
        )
