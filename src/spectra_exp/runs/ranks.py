"""The processes (ranks) that train one run together: how many there are, and the group through which they speak.

torchrun starts them, or `launcher` does where `trainer.processes` asks for several.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError

# Set by our own launcher: the file through which its ranks find each other.
RENDEZVOUS = "SPECTRA_RENDEZVOUS"
# Longest wait of a rank for the others, such as for the first one's tokenising.
TIMEOUT = timedelta(minutes=30)
# What a rank says that ended because another one had.
LOST = "another process of the run ended first; the same command goes on from the last checkpoint"
_CONNECTION = re.compile(r"connection (closed|reset|refused)|broken pipe|gloo/|nccl", re.IGNORECASE)


def world_size() -> int:
    """Ranks of this run, as torchrun and our launcher say; 1 in a process of its own."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """This process's place among the ranks, from 0."""
    return _number("RANK", 0) if world_size() > 1 else 0


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise


def check_started() -> None:
    """Raise ConfigError where the environment does not say which process of a run this is, as torchrun does."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        if name in os.environ and not os.environ[name].isdecimal():
            raise ConfigError(name, f"'{os.environ[name]}' is set and is no number of processes", f"unset {name}")
    # accelerate takes a process with LOCAL_RANK for one of several, however many there are.
    key = "WORLD_SIZE" if world_size() > 1 else "LOCAL_RANK"
    needed = ["RANK", "LOCAL_RANK"] + ([] if supervised() else ["MASTER_ADDR", "MASTER_PORT"])
    missing = [name for name in needed if not os.environ.get(name)]
    if key in os.environ and missing:
        raise ConfigError(key, f"{os.environ[key]} is set, but not {missing[0]}", f"use torchrun, or unset {key}")
    if rank() >= world_size():
        raise ConfigError("RANK", f"{rank()} of WORLD_SIZE={world_size()} processes", "use torchrun")


def supervised() -> bool:
    """Whether our launcher started this rank, which then tells how the run ended."""
    return RENDEZVOUS in os.environ


def rank_summary(number: int) -> str:
    """Name of the file, in the run's folder, in which a rank other than the first leaves how it ended."""
    return f"summary.rank{number}.json"


def with_processes(experiment: Experiment) -> Experiment:
    """The experiment with `trainer.processes` as started. Raises ConfigError where that does not fit."""
    trainer, started = experiment.trainer, world_size()
    if started > 1 and trainer.processes not in (1, started):
        raise ConfigError(
            "trainer.processes", f"{trainer.processes}, but {started} were started", "drop it or start as many"
        )
    processes = max(started, trainer.processes)
    if trainer.batch_size % processes:
        raise ConfigError(
            "trainer.batch_size",
            f"{trainer.batch_size} sequences cannot be shared equally by {processes} processes",
            f"give a multiple of {processes}",
        )
    for key in ("deepspeed", "fsdp"):
        asked = getattr(trainer, key)
        if processes == 1 and asked != "none":
            raise ConfigError(
                f"trainer.{key}",
                f"'{asked}' shares out over processes, and there is one",
                "give trainer.processes=2 or more",
            )
    return replace(experiment, trainer=replace(trainer, processes=processes))


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """A block in which the ranks can speak to each other; a process of its own has nobody to speak to.

    The group lasts as long as the process, whose end tells the other ranks.
    """
    if world_size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    # accelerate would set the threads of a CPU run by itself where this is missing.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    if not dist.is_initialized():
        dist.init_process_group(
            # Figures of the books are summed on the CPU.
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            init_method=Path(os.environ[RENDEZVOUS]).as_uri() if supervised() else "env://",
            rank=rank(),
            world_size=world_size(),
            timeout=TIMEOUT,
        )
    yield


def lost_connection(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    return world_size() > 1 and isinstance(error, RuntimeError) and bool(_CONNECTION.search(str(error)))
