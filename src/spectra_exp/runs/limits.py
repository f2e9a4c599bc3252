"""What keeps work from being done on this machine: memory, time and devices, each said in words instead of a crash."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.devices import training_device
from spectra_exp.foundations.errors import ConfigError, NotRun, first_line
from spectra_exp.runs.ranks import world_size

MEMORY, TIME = "memory", "time"
_MIB = 2**20
# Share of the free memory that stays with the rest of the machine.
RESERVE = 0.05
# A limit recorded as too small is worth another try when there is so much more now.
NOTABLY_MORE = 1.1
_CGROUP = Path("/sys/fs/cgroup")


def chosen_device(name: str) -> torch.device:
    """The device to compute on; `auto` takes a GPU when there is one. ConfigError for a GPU where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "cuda was asked for and there is none", "give device=cpu")
    return torch.device(training_device(name))


def memory_allowed_mb(experiment: Experiment) -> float:
    """MiB that a run on the CPU may take: what is free now, shared by the jobs at once, unless the option says."""
    if experiment.trainer.memory_limit_mb is not None:
        return float(experiment.trainer.memory_limit_mb)
    # A job of a cluster has its share to itself.
    sharing = 1 if experiment.choices["launch"] == "slurm" else experiment.launch.jobs
    sharing *= world_size()
    free = (1 - RESERVE) * free_bytes() / sharing
    return (psutil.Process().memory_info().rss + free) / _MIB


def peak_resident_mb() -> float:
    """Largest resident memory of this process so far, MiB.

    getrusage's figure begins, on Linux, with that of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def free_bytes() -> float:
    """Free memory of the machine, or of the container where that has less."""
    free = float(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, ValueError, KeyError):
        return free
    return free if limit == "max" else min(free, int(limit) - used + int(cache))


@contextmanager
def within_memory(allowed_mb: float, device: str) -> Iterator[None]:
    """A block in which too large a request fails as NotRun instead of getting the process killed."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if device == "cpu":
        # The data limit counts address space that was asked for, some of which is never touched.
        asked = int(allowed_mb * _MIB) + _reserved_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (_at_most(asked, before[1]), before[1]))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        where = f"{allowed_mb:,.0f} MiB" if device == "cpu" else torch.cuda.get_device_name()
        raise NotRun(f"does not fit into the memory of {where} ({first_line(error)})", MEMORY, allowed_mb) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _reserved_bytes() -> int:
    """Address space of this process that counts as data and holds nothing."""
    memory = psutil.Process().memory_info()
    return max(0, memory.data - memory.rss)


def _at_most(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def limit_lifted(summary: dict[str, Any], experiment: Experiment) -> bool:
    """Whether what kept a run from being made is out of the way now."""
    kind: str | None = summary.get("limit_kind")
    allowed: Any = summary.get("limit_allowed")
    if kind == TIME:
        budget = experiment.trainer.time_budget_s
        return budget is None or budget > allowed
    return kind == MEMORY and memory_allowed_mb(experiment) > NOTABLY_MORE * allowed
