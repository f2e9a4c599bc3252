"""Whether the jobs of a launch fit side by side on this machine: GPUs, cores, threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache

from spectra_exp.foundations.devices import Gpu, hand_on, visible_gpus
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies.job import Job

# What the libraries of linear algebra read when they load.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def make_room(jobs: Sequence[Job]) -> None:
    """Set threads and GPUs for the workers of a launch.

    Raises ConfigError for more jobs at once than GPUs; warns, once, of more threads than cores and of sharing no GPU.
    """
    threads = {job.experiment.trainer.cpu_threads for job in jobs}
    for name in THREAD_VARIABLES:
        # Where the jobs differ, each sets its own in torch.
        os.environ[name] = str(threads.copy().pop() if len(threads) == 1 else 1)
    if jobs[0].experiment.choices["launch"] == "slurm":
        # The cluster gives each job its cores and GPUs.
        return
    on_gpu = any(job.planned is not None and job.planned.device == "cuda" for job in jobs)
    gpus = visible_gpus() if on_gpu else []
    hand_on(gpus)
    at_once = jobs[0].experiment.launch.jobs
    if on_gpu:
        check_gpus(at_once, gpus, jobs[0].experiment.launch.per_gpu)
        return
    if (sharers := jobs[0].experiment.launch.per_gpu) > 1:
        warn(f"launch.per_gpu={sharers} has no effect, since these runs use no GPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if at_once * max(threads) > cores:
        asked = f"launch.jobs x trainer.cpu_threads = {at_once * max(threads)} threads"
        warn(f"{asked} on {cores} cores slow each other down")


def check_gpus(at_once: int, gpus: Sequence[Gpu], per_gpu: int) -> None:
    """Raise ConfigError for more jobs at once than the GPUs have places, `per_gpu` each."""
    places = per_gpu * len(gpus)
    if at_once > places:
        sharing = "a GPU of its own" if per_gpu == 1 else f"one of {per_gpu} places on a GPU"
        fix = f"give launch.jobs={places}, or more launch.per_gpu" if gpus else "give trainer.device=cpu"
        raise ConfigError("launch.jobs", f"{at_once} jobs at once, each with {sharing}, of {len(gpus)}", fix)


@cache
def warn(text: str) -> None:
    """Print a warning, each once."""
    print(f"warning: {text}", file=sys.stderr)
