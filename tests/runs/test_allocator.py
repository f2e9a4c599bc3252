from __future__ import annotations

import resource

import pytest
import torch

from spectra_exp.runs.allocator import hand_memory_back, keep_freed_memory

LARGE = 40 * 2**20


def page_faults(times: int = 5) -> int:
    """Page faults of making and freeing one large tensor some times, after a somewhat larger one was freed.

    Without that room the aligned block of the same size may not fit into the place of the last one.
    """

    def make(spare: int = 0) -> None:
        torch.ones((LARGE + spare) // 4)

    make(2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        make()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_used_again_without_the_system() -> None:
    if not keep_freed_memory():
        pytest.skip("no glibc")
    kept = page_faults()
    assert hand_memory_back()
    handed_back = page_faults()
    assert keep_freed_memory()
    assert kept < 0.01 * handed_back
