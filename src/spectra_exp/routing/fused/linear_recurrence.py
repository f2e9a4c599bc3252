"""h_t = keep_t h_{t-1} + add_t and its gradient, each as one kernel.

Shapes: B sequences, S tokens each, W channels. Arithmetic is float32, in a fixed order. A program has a few channels of
one sequence: block after block of tokens, inside which tokens are merged in parallel.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Tokens and channels of a block.
STEPS, CHANNELS = 64, 32


class FusedLinearRecurrence(torch.autograd.Function):
    """h [B, S, W] of h_t = keep_t h_{t-1} + add_t from h = 0; keep and h are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, keep_BSW: Tensor, add_BSW: Tensor) -> Tensor:
        keep_BSW, add_BSW = keep_BSW.contiguous(), add_BSW.contiguous()
        hidden_BSW = torch.empty_like(add_BSW)
        recurrence_forward[_grid(keep_BSW)](keep_BSW, add_BSW, hidden_BSW, *_sizes(keep_BSW), STEPS, CHANNELS)
        ctx.save_for_backward(keep_BSW, hidden_BSW)
        return hidden_BSW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming_BSW: Tensor) -> tuple[Tensor, Tensor]:
        keep_BSW, hidden_BSW = ctx.saved_tensors
        to_keep_BSW, to_add_BSW = torch.empty_like(keep_BSW), torch.empty_like(keep_BSW)
        recurrence_backward[_grid(keep_BSW)](
            keep_BSW,
            hidden_BSW,
            incoming_BSW.contiguous(),
            to_keep_BSW,
            to_add_BSW,
            *_sizes(keep_BSW),
            STEPS,
            CHANNELS,
        )
        return to_keep_BSW, to_add_BSW


def _grid(values_BSW: Tensor) -> tuple[int, int]:
    return triton.cdiv(values_BSW.shape[2], CHANNELS), values_BSW.shape[0]


def _sizes(values_BSW: Tensor) -> tuple[int, int]:
    return values_BSW.shape[1], values_BSW.shape[2]


@triton.jit
def recurrence_forward(keep_bsw, add_bsw, hidden_bsw, length, width, STEPS: tl.constexpr, CHANNELS: tl.constexpr):
    """A block of channels from the first token to the last."""
    sequence, channel, there = _own_part(length, width, CHANNELS)
    state = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, length, STEPS):
        step = start + tl.arange(0, STEPS)
        at = sequence + step[:, None] * width + channel[None, :]
        kept = (step < length)[:, None] & there[None, :]
        keep = tl.load(keep_bsw + at, mask=kept, other=0.0)
        add = tl.load(add_bsw + at, mask=kept, other=0.0)
        hidden, state = _continued(keep, add, state, STEPS)
        tl.store(hidden_bsw + at, hidden, mask=kept)


@triton.jit
def recurrence_backward(
    keep_bsw,
    hidden_bsw,
    incoming_bsw,
    to_keep_bsw,
    to_add_bsw,
    length,
    width,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A block of channels from the last token to the first: g_t = incoming_t + keep_{t+1} g_{t+1}."""
    sequence, channel, there = _own_part(length, width, CHANNELS)
    state = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, length, STEPS):
        step = length - 1 - start - tl.arange(0, STEPS)
        at = sequence + step[:, None] * width + channel[None, :]
        kept = (step >= 0)[:, None] & there[None, :]
        later = kept & (step < length - 1)[:, None]
        keep = tl.load(keep_bsw + at + width, mask=later, other=0.0)
        incoming = tl.load(incoming_bsw + at, mask=kept, other=0.0)
        gradient, state = _continued(keep, incoming, state, STEPS)
        before = tl.load(hidden_bsw + at - width, mask=kept & (step > 0)[:, None], other=0.0)
        tl.store(to_add_bsw + at, gradient, mask=kept)
        tl.store(to_keep_bsw + at, gradient * before, mask=kept)


@triton.jit
def _own_part(length, width, CHANNELS: tl.constexpr):
    """Where this program's sequence begins, its channels, and which of them there are."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    return tl.program_id(1).to(tl.int64) * length * width, channel, channel < width


@triton.jit
def _continued(keep, add, state, STEPS: tl.constexpr):
    """The states of a block of steps after `state`, and the last of them."""
    kept, added = tl.associative_scan((keep, add), 0, _merged)
    hidden = kept * state[None, :] + added
    last = tl.arange(0, STEPS)[:, None] == STEPS - 1
    return hidden, tl.sum(tl.where(last, hidden, 0.0), 0)


@triton.jit
def _merged(keep, add, later_keep, later_add):
    """Two stretches of steps as one."""
    return later_keep * keep, later_keep * add + later_add
