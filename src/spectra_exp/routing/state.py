"""Weights and state of routers, in float32 whatever dtype the model is cast to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Float32State(nn.Module):
    """A module whose parameters and buffers, its parts' included, keep their precision where a lower one is asked for.

    A bias near 1 that moves by 0.001 would not move in bfloat16, whose next number there is 0.008 away; and the
    arithmetic of routing is in float32.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            lower = moved.is_floating_point() and moved.itemsize < tensor.itemsize
            return tensor.to(moved.device) if lower else moved

        return super()._apply(kept, *args, **kwargs)
