"""The stages of the check, in the order in which they run."""

from __future__ import annotations

from spectra_exp.bench.gpu_check.benchmark_stages import layers, others, steps
from spectra_exp.bench.gpu_check.run_stages import exp10, resume, sharing, tests
from spectra_exp.bench.gpu_check.stage import Stage
from spectra_exp.bench.gpu_check.training_stages import agreement, attention, fsdp, kernels, memory, waiting

IN_ORDER: tuple[Stage, ...] = (
    tests,
    agreement,
    kernels,
    waiting,
    memory,
    resume,
    fsdp,
    attention,
    steps,
    layers,
    exp10,
    sharing,
    others,
)


def stages() -> dict[str, Stage]:
    """All stages by name, in the order in which they run."""
    return {work.__name__: work for work in IN_ORDER}
