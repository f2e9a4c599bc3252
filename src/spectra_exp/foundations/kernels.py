"""Ways to compute a part of the model: kernels made for it, or the operations of PyTorch."""

from __future__ import annotations

TRITON, PLAIN = "triton", "plain"
