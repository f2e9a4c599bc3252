"""Weights and state of routers, in float32 whatever dtype the model is cast to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Float32State(nn.Module):
    """A module whose parameters and buffers, its parts' included, are float32 where the model is cast to less.

    A bias near 1 that moves by 0.001 would not move in bfloat16, whose next number there is 0.008 away; and the
    arithmetic of routing is in float32.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_lower = moved.is_floating_point() and moved.itemsize < torch.float32.itemsize
            return tensor.to(moved.device, torch.float32) if is_lower else moved

        return super()._apply(kept, *args, **kwargs)
