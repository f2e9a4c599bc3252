"""Ways to compute a part of the model: kernels made for it, or the operations of PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

TRITON, PLAIN = "triton", "plain"


@dataclass(frozen=True)
class Kernel:
    """name: triton or plain. reason: why this one."""

    name: str
    reason: str


def auto_kernel(lack: str | None) -> Kernel:
    """Triton's, unless something is lacking for it."""
    if lack is None:
        return Kernel(TRITON, "it is installed, and the GPU and the model allow it")
    return Kernel(PLAIN, f"no {TRITON}: {lack}")
