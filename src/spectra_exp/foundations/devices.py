"""GPUs: a process claims a free one, or a share of one, for its life before it touches CUDA; their float32."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
# The GPUs that a launch may use, for its workers: launchers put values of their own into VISIBLE.
GPUS = "SPECTRA_GPUS"
POLL_S = 1.0
# Shares that a GPU has at most; a process that wants it alone takes them all.
SHARES = 16


def training_device(wanted: str) -> str:
    """cpu or cuda, for `trainer.device`: auto takes a GPU where there is one."""
    import torch

    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def full_float32() -> Iterator[None]:
    """A block in which a GPU computes products of float32 in float32, in cuDNN's recurrent networks too.

    By itself PyTorch lets cuDNN round their factors to the ten bits of TF32.
    """
    import torch

    parts: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    try:
        yield
    finally:
        for part, allowed in zip(parts, before, strict=True):
            part.allow_tf32 = allowed


@dataclass(frozen=True)
class Gpu:
    """`name`: what CUDA_VISIBLE_DEVICES calls it; `key`: the same in every process of the machine."""

    name: str
    key: str


def named_gpus(names: Sequence[str] | None, uuids: Sequence[str]) -> list[Gpu]:
    """The GPUs that `names` (of CUDA_VISIBLE_DEVICES; None: not set) leaves of those of the machine, in its order.

    As CUDA reads it: by index or by the beginning of a UUID, up to the first name that is none.
    """
    if names is None:
        return [Gpu(str(index), uuid) for index, uuid in enumerate(uuids)]
    gpus: list[Gpu] = []
    for name in names:
        if name.startswith("MIG-"):
            # A part of a GPU, which the machine's list does not hold.
            keys = [name]
        elif name.isdecimal():
            keys = list(uuids[int(name) : int(name) + 1])
        else:
            keys = [uuid for uuid in uuids if name and uuid.startswith(name)]
        if len(keys) != 1:
            break
        gpus.append(Gpu(name, keys[0]))
    return gpus


def machine_uuids() -> list[str] | None:
    """UUID of each NVIDIA GPU in the order of the driver, without touching CUDA; None where the driver tells none."""
    import torch

    try:
        return torch.cuda._raw_device_uuid_nvml()
    except (OSError, AttributeError):
        # No NVML library, or another maker's GPUs.
        return None


def visible_gpus(
    environment: Mapping[str, str] = os.environ, uuids: Callable[[], Sequence[str] | None] = machine_uuids
) -> list[Gpu]:
    """The GPUs that this process may take, by the launch's choice or else the user's."""
    visible = environment.get(GPUS, environment.get(VISIBLE))
    names = None if visible is None else [word.strip() for word in visible.split(",") if word.strip()]
    known = uuids()
    if known is not None:
        return named_gpus(names, known)
    import torch

    count = torch.cuda.device_count()
    return [Gpu(name, f"gpu-{name}") for name in (names or map(str, range(count)))][:count]


def hand_on(gpus: Sequence[Gpu]) -> None:
    """Let the worker processes of this one choose among `gpus`, whatever their launcher lets them see."""
    os.environ.pop(GPUS, None)
    if gpus:
        os.environ[GPUS] = ",".join(gpu.name for gpu in gpus)


def see_what_was_handed_on() -> None:
    """In a worker that has no GPU yet: make those of its launch visible again."""
    if GPUS in os.environ and _claimed is None:
        os.environ[VISIBLE] = os.environ[GPUS]


_claimed: tuple[Gpu, list[FileLock]] | None = None


def claim_gpu(
    gpus: Sequence[Gpu] | None = None,
    folder: Path | None = None,
    give_up: Callable[[], object] = lambda: False,
    sharers: int = 1,
) -> Gpu | None:
    """The GPU that this process has from now on with at most `sharers` - 1 others; CUDA sees no other.

    `gpus`: those to choose from, by default `visible_gpus`; `folder`: where the locks lie. Waits while all are taken;
    None when there is none at all or `give_up` says to wait no longer. Whoever wants a GPU alone waits for all sharers.
    """
    global _claimed
    if _claimed is not None:
        return _claimed[0]
    gpus = visible_gpus() if gpus is None else gpus
    told = False
    while gpus and not give_up():
        # One on each GPU before a second on any.
        for shares in [range(SHARES)] if sharers == 1 else [range(n, n + 1) for n in range(sharers)]:
            for gpu in gpus:
                locks = _try_locks(gpu, folder or _lock_folder(), shares)
                if locks:
                    _claimed = (gpu, locks)
                    os.environ[VISIBLE] = gpu.name
                    return gpu
        if not told:
            log.warning("waiting for one of %d GPUs, which other runs have", len(gpus))
            told = True
        time.sleep(POLL_S)
    return None


def _try_locks(gpu: Gpu, folder: Path, shares: Sequence[int]) -> list[FileLock]:
    """The locks of these shares of a GPU, held until this process ends, however it ends; none if another has one."""
    held: list[FileLock] = []
    for share in shares:
        name = f"{gpu.key}.{share}" if share else gpu.key
        # Any user may claim, so any user may write.
        lock = FileLock(folder / f"{name}.lock", timeout=0, thread_local=False, mode=0o666)
        try:
            lock.acquire()
        except Timeout:
            for taken in held:
                taken.release()
            return []
        held.append(lock)
    return held


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / "spectra-exp-gpus"
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    return folder
