"""PyTorch's FSDP, its configuration, and the check that a run is distributed as it was asked to be."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer

from spectra_exp.config.schema import Experiment, TrainerConfig
from spectra_exp.foundations.collective import total_over_ranks
from spectra_exp.foundations.errors import SpectraError


class NotSharded(SpectraError):
    """A run is not distributed as its configuration says."""


def fsdp_arguments(experiment: Experiment) -> dict[str, Any]:
    """Trainer's arguments for FSDP2; empty without it.

    A checkpoint holds whole weights. `shard_grad_op` keeps a layer's weights gathered from its forward pass to its
    backward pass.
    """
    sharded = experiment.trainer.fsdp
    if sharded == "none":
        return {}
    return {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": sharded == "full_shard"}}


def check_distributed(trainer: Trainer, config: TrainerConfig) -> None:
    """Raise NotSharded unless the prepared model is distributed as `config` says; every rank calls this.

    Trainer falls back on data parallelism where it cannot shard, and says nothing.
    """
    found = trainer.accelerator.distributed_type
    for key, wanted in (("fsdp", DistributedType.FSDP), ("deepspeed", DistributedType.DEEPSPEED)):
        asked = getattr(config, key)
        if (asked != "none") != (found == wanted):
            raise NotSharded(f"trainer.{key}={asked} was asked for, but Trainer made {found.value} of it")
    if config.fsdp != "none":
        assert trainer.model is not None
        held, whole = sizes(trainer.model)
        if held != whole:
            told = f"the ranks hold {held} numbers of {whole} parameters together"
            raise NotSharded(f"trainer.fsdp={config.fsdp}: {told}")


def sizes(model: nn.Module) -> tuple[int, int]:
    """Numbers that all ranks hold together of the parameters, and those that there are; every rank calls this.

    The two are equal when each number lies on one rank alone.
    """
    parameters = list(model.parameters())
    own = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
    return int(total_over_ranks(torch.tensor(own))), sum(p.numel() for p in parameters)


def forget_sharding() -> None:
    """Let the next run of this process be made as ever: accelerate would shard it too."""
    os.environ.pop("ACCELERATE_USE_FSDP", None)
