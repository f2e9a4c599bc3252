"""What two processes do under FSDP; `test_fsdp.py` spawns them.

Trainer and accelerate shard on GPUs alone, PyTorch's FSDP2 on the CPU too: without a GPU accelerate is told that it has
two, and all else is what a GPU's run does.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import torch
from accelerate import accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from ranks_cases import FAILS_AT, SWITCH, as_rank, at_step, made
from torch.distributed.tensor import DTensor
from zero_cases import SPECTRA

from spectra_exp.config import rules_running
from spectra_exp.foundations import stopping
from spectra_exp.training.session import Session

FULL = [*SWITCH, "trainer.fsdp=full_shard"]
# Files of what each rank holds of each parameter.
PARTS = "parts"
INIT, FINISH = AcceleratorState.__init__, Session._finish


@contextmanager
def allowed_on_the_cpu():
    """A block in which trainer.fsdp is not refused for want of GPUs."""
    with patch.object(rules_running, "training_device", lambda wanted: "cuda"):
        yield


@contextmanager
def sharding_on_the_cpu():
    """A block in which accelerate shards CPU tensors, as it does those of GPUs."""

    def init(state, *args, fsdp_plugin=None, **kwargs):
        INIT(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            state.fsdp_plugin = fsdp_plugin
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    with patch.object(AcceleratorState, "__init__", init):
        yield


def on_rank(rank: int, folder: str, small: list[str]) -> None:
    """Entry of one spawned process; each run has outputs of its own below `folder`."""
    as_rank(rank, folder)
    with allowed_on_the_cpu():
        assert made(small, f"{folder}/ddp", *FULL) == "failed"
        with sharding_on_the_cpu():
            with patch.object(accelerator, "fsdp2_prepare_model", lambda accelerator, model: model):
                assert made(small, f"{folder}/unsharded", *FULL) == "failed"
            make_runs(rank, folder, small)
            # A run that did not ask for it, after one that did.
            assert made(small, f"{folder}/after", *SWITCH, "trainer.max_steps=1") == "completed"


def on_gpu(rank: int, folder: str, small: list[str]) -> None:
    """The same of one of two processes that have a GPU each."""
    as_rank(rank, folder)
    make_runs(rank, folder, small)


def make_runs(rank: int, folder: str, small: list[str]) -> None:
    def finish(session: Session):
        parameters = session.model.parameters()
        parts = [(p.numel(), (p.to_local() if isinstance(p, DTensor) else p).numel()) for p in parameters]
        torch.save(parts, f"{folder}/{PARTS}{rank}.pt")
        return FINISH(session)

    with patch.object(Session, "_finish", finish):
        assert made(small, f"{folder}/full_shard", *FULL) == "completed"
    assert made(small, f"{folder}/shard_grad_op", *SPECTRA, "trainer.fsdp=shard_grad_op") == "completed"
    with at_step(FAILS_AT, lambda: stopping.ask("SIGTERM") if rank else None):
        assert made(small, f"{folder}/resumed", *FULL) == "stopped"
    stopping.ask(None)
    assert made(small, f"{folder}/resumed", *FULL) == "completed"
