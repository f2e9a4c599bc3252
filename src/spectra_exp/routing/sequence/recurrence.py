"""A recurrence whose factors do not depend on its own state, by a parallel scan in place of a loop over tokens.

Shapes: B sequences, S tokens each, W channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spectra_exp.foundations.kernels import PLAIN, TRITON


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


def recurrence(
    keep_BSW: Tensor, add_BSW: Tensor, mask_BS: Tensor | None, first_BW: Tensor | None, kernel: str | None = PLAIN
) -> Tensor:
    """h [B, S, W] of h_t = keep_t h_{t-1} + add_t from `first_BW` (None: 0); padding leaves h as it is.

    kernel: plain, or triton on a device that has it.
    """
    if mask_BS is not None:
        keep_BSW = keep_BSW.masked_fill(~mask_BS[..., None], 1.0)
        add_BSW = add_BSW.masked_fill(~mask_BS[..., None], 0.0)
    if first_BW is not None:
        first_B1W = add_BSW[:, :1] + keep_BSW[:, :1] * first_BW[:, None]
        add_BSW = torch.cat([first_B1W, add_BSW[:, 1:]], dim=1)
    if kernel == TRITON and add_BSW.numel():
        from spectra_exp.routing.fused.linear_recurrence import FusedLinearRecurrence

        return FusedLinearRecurrence.apply(keep_BSW, add_BSW)
    return LinearRecurrence.apply(keep_BSW, add_BSW)
