"""Where the host waits for a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# How PyTorch tells of what makes the host wait.
WAIT = "called a synchronizing CUDA operation"


@contextmanager
def waits(device: str, places: list[str]) -> Iterator[None]:
    """A block that adds to `places` the file and line of whatever makes the host wait for the GPU."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    places += [f"{Path(w.filename).name}:{w.lineno}" for w in told if WAIT in str(w.message)]
