"""A process's own peak of memory, whoever started it, and what is said when there is too little."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from spectra_exp.foundations.errors import NotRun
from spectra_exp.runs.limits import peak_resident_mb, within_memory

SMALL = "import resource; from spectra_exp.runs.limits import peak_resident_mb; print(peak_resident_mb())"


def test_the_peak_is_not_that_of_the_process_that_started_it():
    before = peak_resident_mb()
    block = torch.ones(400 * 2**18)
    assert peak_resident_mb() >= before and block.sum() == block.numel()
    child = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, check=True)
    through = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SMALL!r}], check=True)"
    fresh = subprocess.run([sys.executable, "-c", through], capture_output=True, text=True, check=True)
    # The same program from a small parent.
    assert float(child.stdout) < 1.2 * float(fresh.stdout) < peak_resident_mb()


def test_it_rises_with_what_is_taken():
    before = peak_resident_mb()
    taken = torch.ones((int(before) + 100) * 2**18)
    assert peak_resident_mb() > before + 50 and taken.sum() == taken.numel()


def test_an_error_without_words_is_told_by_its_name():
    with pytest.raises(NotRun, match=r"memory of 1,000,000 MiB \(MemoryError\)"), within_memory(1e6, "cpu"):
        raise MemoryError
