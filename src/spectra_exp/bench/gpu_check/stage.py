"""A stage: what it is told, and the file that each writes while it goes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spectra_exp.foundations.files import write_json

WORDS = {True: "passed", False: "FAILED", None: "left out"}
# One finding: `name`, `passed` (None for what could not be looked at here), and figures.
Finding = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """device: cuda, or cpu for a rehearsal in tiny shapes. outputs: the folder of all outputs. routers: by name."""

    device: str
    outputs: Path
    routers: tuple[str, ...]

    @property
    def card(self) -> str:
        """The device's name, as a file's name."""
        return torch.cuda.get_device_name().replace(" ", "-").lower() if self.device == "cuda" else "cpu"

    @property
    def folder(self) -> Path:
        """Where the findings are written."""
        return self.outputs / "gpu-check" / self.card

    def of_size(self, full: int, tiny: int) -> int:
        """A number of steps, repeats or tokens: the full one, or that of a rehearsal."""
        return full if self.device == "cuda" else tiny

    def bf16(self) -> AbstractContextManager[Any]:
        """A block computed in bf16 where a training run is."""
        return torch.autocast(self.device, torch.bfloat16)

    def memory(self) -> int:
        """Bytes that tensors hold on the device; on the CPU those that Python knows of."""
        if self.device == "cuda":
            return torch.cuda.memory_allocated()
        # Until there is nothing left: what garbage holds by way of PyTorch's graphs is garbage only once it is gone.
        while gc.collect():
            pass
        # Other kinds of tensors may have no memory of their own to ask for.
        tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
        storages = [t.untyped_storage() for t in tensors if t.layout is torch.strided and t.device.type == "cpu"]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


Stage = Callable[[Setting], Iterator[Finding]]


def outcome(findings: Sequence[Finding]) -> bool | None:
    """Whether what was looked at passed; None where nothing could be."""
    looked_at = [finding["passed"] for finding in findings if finding["passed"] is not None]
    return all(looked_at) if looked_at else None


def carry_out(name: str, work: Stage, setting: Setting) -> bool | None:
    """Run one stage; the outcome of its findings. Its file holds every finding as soon as there is one.

    A stage that breaks off leaves its error as a finding, and the next one goes on.
    """
    findings: list[Finding] = []
    began = time.perf_counter()
    path = setting.folder / f"{name}.json"

    def write(done: bool) -> None:
        head = {"stage": name, "card": setting.card, "torch": torch.__version__, "cuda": torch.version.cuda}
        seconds = round(time.perf_counter() - began, 2)
        write_json(path, head | {"seconds": seconds, "done": done, "findings": findings})

    write(done=False)
    try:
        for finding in work(setting):
            findings.append(finding)
            write(done=False)
    except Exception as error:
        text = " ".join(str(error).split())
        findings.append({"name": "error", "passed": False, "error": f"{type(error).__name__}: {text}"})
    write(done=True)
    return outcome(findings)
