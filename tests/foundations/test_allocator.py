from __future__ import annotations

import json
import subprocess
import sys

import pytest

from spectra_exp.foundations.allocator import keep_freed_memory

PAGES = 10 * 2**10
# Page faults of each time that one tensor of 40 MB is made and freed, in a process that did nothing before.
SCRIPT = """
import json, resource, sys, torch
from spectra_exp.foundations.allocator import hand_memory_back, keep_freed_memory
assert {"keep": keep_freed_memory, "usual": hand_memory_back}[sys.argv[1]]()
found = []
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps(found))
"""


def page_faults(setting: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, setting], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_freed_memory_is_used_again_without_the_system() -> None:
    if not keep_freed_memory():
        pytest.skip("no glibc")
    # Some find the place of the last one too small for an aligned block, and take another.
    assert min(page_faults("keep")) < 0.01 * PAGES
    # Planted fault: the setting does nothing.
    assert min(page_faults("usual")) > 0.5 * PAGES
