"""State that answers the load, in float32 whatever dtype the model is cast to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Float32State(nn.Module):
    """A module whose own buffers keep their precision where the module is cast to a lower one.

    A bias near 1 that moves by 0.001 would not move in bfloat16, whose next number there is 0.008 away.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        before = dict(self._buffers)
        super()._apply(fn, *args, **kwargs)
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.is_floating_point() and buffer.itemsize < before[name].itemsize:
                self._buffers[name] = before[name].to(buffer.device)
        return self
