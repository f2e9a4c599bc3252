from __future__ import annotations

import resource

import pytest
import torch

from spectra_exp.runs.allocator import hand_memory_back, keep_freed_memory

LARGE = 40 * 2**20
PAGES = LARGE // 4096


def page_faults(times: int = 16) -> list[int]:
    """Page faults of each time that one large tensor is made and freed."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(LARGE // 4)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return found


def test_freed_memory_is_used_again_without_the_system() -> None:
    if not keep_freed_memory():
        pytest.skip("no glibc")
    # Some of them find the place of the last one too small for an aligned block.
    kept = page_faults()
    assert hand_memory_back()
    handed_back = page_faults()
    assert min(kept) < 0.01 * PAGES < 0.5 * PAGES < min(handed_back)
