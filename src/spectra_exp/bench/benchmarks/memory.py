"""Peak memory of a training step, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from spectra_exp.bench.benchmarks.step import (
    LENGTH,
    SEQUENCES,
    VOCABULARY,
    both_ways,
    exp10,
    transformers_of_the_same_size,
)
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.allocator import keep_freed_memory
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.runs.limits import peak_resident_mb
from spectra_exp.runs.plan import plan
from spectra_exp.training.build import build_model

GIB = 2**30
LONG = 32768


@benchmark
def memory(outputs: Path) -> list[Figure]:
    """Peak of exp10's step beside transformers' of the same size; the tiny default at 32k tokens in one sequence."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("exp10", "transformers", "long")
        ours, theirs, long = (_in_process_of_its_own(name, folder) for name in names)
    return [
        Figure("memory_against_transformers", ours["step"] / theirs["step"], "x its peak over the weights", 1.2),
        Figure("memory_step", ours["step"] / GIB, "GiB over the weights, exp10"),
        Figure("memory_32k_tiny", long["peak"] / GIB, "GiB, whole process", 24.0),
    ]


def _in_process_of_its_own(subject: str, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, subject, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpectraError(f"benchmark memory: {subject}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _subject(name: str, folder: str) -> Callable[[], None]:
    """One step, forward and backward, as a function."""
    torch.set_num_threads(1)
    ids = torch.randint(0, VOCABULARY, (SEQUENCES["cpu"], LENGTH))
    if name == "transformers":
        theirs = transformers_of_the_same_size().train()
        return lambda: both_ways(theirs, input_ids=ids, labels=ids)
    keep_freed_memory()
    if name == "long":
        planned = plan(load_experiment([f"model.max_positions={LONG}", f"outputs={folder}"]))
        model = build_model(planned.experiment, planned.corpus).train()
        ids = torch.randint(0, model.config.vocab_size, (1, LONG))
    else:
        model = exp10().train()
    return lambda: both_ways(model, input_ids=ids, labels=ids, return_logits=False)


def main(subject: str, folder: str) -> None:
    """Print the peak of two steps of a subject: of the process, and over what it held before them."""
    prepare_environment()
    work = _subject(subject, folder)
    before = psutil.Process().memory_info().rss
    for _ in range(1 if subject == "long" else 2):
        work()
    peak = peak_resident_mb() * 2**20
    print(json.dumps({"peak": peak, "step": peak - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
