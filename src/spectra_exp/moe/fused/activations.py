"""Activations and their slopes, in float32."""

from __future__ import annotations

import math

import triton
import triton.language as tl

_ROOT_HALF = tl.constexpr(math.sqrt(0.5))
_NORMAL = tl.constexpr(1 / math.sqrt(2 * math.pi))


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """The activation of x."""
    if ACTIVATION == "silu":
        return x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        return 0.5 * x * (1 + tl.erf(x * _ROOT_HALF))
    else:
        return tl.maximum(x, 0.0)


@triton.jit
def slope(x, ACTIVATION: tl.constexpr):
    """The activation's derivative at x."""
    if ACTIVATION == "silu":
        share = tl.sigmoid(x)
        return share * (1 + x * (1 - share))
    elif ACTIVATION == "gelu":
        return 0.5 * (1 + tl.erf(x * _ROOT_HALF)) + x * tl.exp(-0.5 * x * x) * _NORMAL
    else:
        return tl.where(x > 0, 1.0, 0.0)
