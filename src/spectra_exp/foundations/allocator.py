"""What this process does with memory that tensors gave back."""

from __future__ import annotations

import ctypes

# glibc's mallopt(3): how much may lie free at the heap's end, from which size on a block is mapped apart, how many may.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# Where glibc's own adjustment of both thresholds ends in a process that frees large blocks.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of handing it back to the system; whether that could be set.

    A large tensor is otherwise mapped anew each time it is made, and the system clears each page of it on the first
    touch: a fifth of the time of 32 experts' forward and backward pass on a CPU (docs/results/speed.md).
    Only glibc has the setting; elsewhere nothing changes. It suits work whose tensors have the same sizes each time, as
    steps of training do: under sizes that vary the process can grow to several times what it uses. So a run begins
    with this and ends with `hand_memory_back`.
    """
    return _set(_KEEPING)


def hand_memory_back() -> bool:
    """As it is without `keep_freed_memory`: freed memory of large tensors goes back at once; whether that was set."""
    done = _set(_USUAL)
    if done:
        ctypes.CDLL(None).malloc_trim(0)
    return done


def _set(options: dict[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        # Not glibc.
        return False
    return all(mallopt(option, value) == 1 for option, value in options.items())
