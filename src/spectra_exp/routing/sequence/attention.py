"""Routing vectors by causal self-attention, one head of width D per expert.

Shapes: B sequences, S tokens each, T tokens with those of the state, E experts, D router dimension, W = E D.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from spectra_exp.routing.sequence.base import (
    SequenceEncoder,
    real_tokens_first,
    reordered,
    restored,
)

# Head widths are filled up with zeros to a multiple of this: fused kernels on GPUs want aligned rows.
ALIGNMENT = 8


class AttentionEncoder(SequenceEncoder):
    """A token's own value plus the values of the tokens up to it, weighted by softmax(q k / sqrt(D)).

    No positions of its own: the backbone's hidden states carry them. The own value is added because attention is
    near uniform at the start, and a mean over the past alone would route neighbouring tokens alike. The state is
    [T, B, 2 W + 1]: keys, values, and 1 for a real token. Xavier-uniform weights. *Source:* Vaswani et al. 2017;
    docs/method.md 1.1. `flops_per_token` counts the projections, as it does not know S.
    """

    recurrent = True

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.linear = nn.Linear(hidden_size, 3 * num_experts * dim, bias=False)

    def reset_parameters(self) -> None:
        for weight in self.linear.weight.data.chunk(3):
            nn.init.xavier_uniform_(weight)

    def forward(self, hidden_BSd, mask_BS, state):
        query_BSW, key_BSW, value_BSW = self.linear(hidden_BSd).chunk(3, dim=-1)
        real_BS1 = torch.ones_like(key_BSW[..., :1]) if mask_BS is None else mask_BS[..., None].to(key_BSW.dtype)
        memory_BTx = torch.cat([key_BSW, value_BSW, real_BS1], dim=-1)
        if state is not None:
            memory_BTx = torch.cat([state.transpose(0, 1), memory_BTx], dim=1)
        if mask_BS is None and state is None:
            attended_BSW = self._attend(query_BSW, key_BSW, value_BSW, is_causal=True)
        elif query_BSW.shape[1] == 1:
            attended_BSW = self._last_token(query_BSW, memory_BTx)
        else:
            attended_BSW = self._after_memory(query_BSW, memory_BTx)
        vectors_BSED = (value_BSW + attended_BSW).unflatten(-1, (self.num_experts, self.dim))
        return vectors_BSED, memory_BTx.transpose(0, 1)

    def _last_token(self, query_B1W: Tensor, memory_BTx: Tensor) -> Tensor:
        """Attention of one token, the last: it sees every real token."""
        key_BTW, value_BTW, real_BT = self._parts(memory_BTx)
        # Itself too, real or not: a row that sees nothing would be NaN.
        seen_BT = torch.cat([real_BT[:, :-1], torch.ones_like(real_BT[:, -1:])], dim=1)
        return self._attend(query_B1W, key_BTW, value_BTW, attn_mask=seen_BT[:, None, None])

    def _after_memory(self, query_BSW: Tensor, memory_BTx: Tensor) -> Tensor:
        """Attention of the last S of T tokens, with padding anywhere.

        Tokens of the state get empty queries and padding goes to the end: a square causal mask, which fused kernels
        apply without ever forming it, is then the right one.
        """
        key_BTW, value_BTW, real_BT = self._parts(memory_BTx)
        past = key_BTW.shape[1] - query_BSW.shape[1]
        order_BT, _ = real_tokens_first(real_BT)
        query_BTW = pad(query_BSW, (0, 0, past, 0))
        attended = self._attend(*(reordered(x, order_BT) for x in (query_BTW, key_BTW, value_BTW)), is_causal=True)
        return restored(attended, order_BT)[:, past:]

    @staticmethod
    def _parts(memory_BTx: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key_BTW, value_BTW = memory_BTx[..., :-1].chunk(2, dim=-1)
        return key_BTW, value_BTW, memory_BTx[..., -1] > 0

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attention by heads, [B, S, W]; memory linear in S under a fused kernel."""
        query, key, value = (
            pad(x.unflatten(-1, (self.num_experts, self.dim)).transpose(1, 2), (0, -self.dim % ALIGNMENT))
            for x in (query, key, value)
        )
        attended_BESD = scaled_dot_product_attention(
            query, key, value, attn_mask, is_causal=is_causal, scale=self.dim**-0.5
        )
        return attended_BESD[..., : self.dim].transpose(1, 2).flatten(2)
