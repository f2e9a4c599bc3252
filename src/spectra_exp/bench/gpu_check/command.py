"""`spectra-exp gpu-check`: the stages one after the other, and what they found in one line each."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from spectra_exp.bench.gpu_check.benchmark_stages import layers, others, steps
from spectra_exp.bench.gpu_check.page import stored_stages, write_page
from spectra_exp.bench.gpu_check.run_stages import exp10, resume, sharing, tests
from spectra_exp.bench.gpu_check.stage import WORDS, Setting, Stage, carry_out
from spectra_exp.bench.gpu_check.training_stages import agreement, attention, fsdp, kernels, memory, waiting
from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED
from spectra_exp.routing.base import routers

# In the order in which they run.
STAGES: dict[str, Stage] = {
    work.__name__: work
    for work in (
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
}


@dataclass(frozen=True)
class GpuCheckOptions(VerbOptions):
    """What is checked."""

    device: str = option("cuda", "cpu rehearses everything in tiny shapes", choices=["cuda", "cpu"])
    only: tuple[str, ...] = option((), "stages, separated by commas; all when none is named")
    routers: tuple[str, ...] = option((), "routers, separated by commas; all when none is named")


def gpu_check(options: GpuCheckOptions) -> int:
    """Run the stages; 1 when one of them found a fault. Raises ConfigError, and SpectraError without a GPU."""
    known, routed = STAGES, [n for n, cls in routers().items() if cls.routes and not cls.needs_source]
    ConfigError.refuse_unknown("only", options.only, known)
    ConfigError.refuse_unknown("routers", options.routers, routed)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SpectraError("gpu-check: torch sees no GPU here; device=cpu (GPU_CHECK_DEVICE=cpu) rehearses it")
    setting = Setting(options.device, options.folder.resolve(), options.routers or tuple(routed))
    asked = options.only or tuple(known)
    # The page has the earlier stages too.
    stored_stages(setting.folder, [name for name in known if name not in asked])
    good = True
    for name, work in known.items():
        if name in asked:
            print(f"{name}: {' '.join((work.__doc__ or '').split())}", file=sys.stderr)
            try:
                passed = carry_out(name, work, setting)
            finally:
                # Also where it is stopped.
                path = write_page(setting.folder, known)
            print(f"{name}: {WORDS[passed]}", flush=True)
            good = good and passed is not False
    print(path)
    return DONE if good else FAILED


def _stages_help() -> str:
    return "\n".join(["Stages:", *(f"  {name:<12} {(work.__doc__ or '').strip()}" for name, work in STAGES.items())])


main = Verb(
    "gpu-check",
    GpuCheckOptions,
    gpu_check,
    "Proves the code on a GPU: gpu-check/CARD in the folder of outputs, a JSON file a stage, and a page.",
    ("", "only=agreement routers=switch,spectra", "device=cpu"),
    more=_stages_help,
    bare=("only",),
)
