"""The layer and the step on a GPU, beside transformers' grouped products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.utils.benchmark import timer

from spectra_exp.bench.benchmarks.layer import layer_subjects, peer_subjects
from spectra_exp.bench.benchmarks.step import step_subjects
from spectra_exp.bench.floor import SHAPES, Shape, make_case
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import interleaved, ratio
from spectra_exp.foundations.errors import SpectraError

ROUNDS = 20
AS_FAST = "x transformers' grouped_mm"


@benchmark
def layer_gpu(outputs: Path) -> list[Figure]:
    """Experts' forward and backward pass on a GPU in bf16, beside transformers' grouped_mm."""
    _need_gpu("layer_gpu")
    return layer_figures(SHAPES, "cuda", ROUNDS)


def layer_figures(shapes: Mapping[str, Shape], device: str, rounds: int) -> list[Figure]:
    """Ours beside transformers' grouped_mm in bf16, a figure a shape."""
    figures = []
    for name, shape in shapes.items():
        case = make_case(shape, device)
        with torch.autocast(device, torch.bfloat16):
            peers = peer_subjects(case, name)
            subjects = {"ours": layer_subjects(case)["ours"], "theirs": peers["transformers_grouped_mm"]}
            times = interleaved(subjects, rounds, timer)
        figures.append(Figure(f"layer_{name}_gpu", ratio(times, "theirs", "ours"), AS_FAST, 1.0, "higher"))
    return figures


@benchmark
def step_gpu(outputs: Path) -> list[Figure]:
    """exp10's forward and backward pass on a GPU in bf16, beside transformers of the same size."""
    _need_gpu("step_gpu")
    subjects: dict[str, Callable[[], object]] = step_subjects("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        times = interleaved({name: subjects[name] for name in ("ours", "transformers")}, ROUNDS, timer)
    return [Figure("step_gpu", ratio(times, "transformers", "ours"), AS_FAST, 1.1, "higher")]


def _need_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        raise SpectraError(f"benchmark {name}: torch sees no GPU")
