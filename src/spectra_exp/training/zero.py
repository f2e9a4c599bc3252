"""DeepSpeed's ZeRO: its configuration, and parameters that ranks hold in parts made whole where they are read."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import nn

from spectra_exp.config.schema import Experiment
from spectra_exp.moe.layer import MoeLayer

# What is sharded over ranks: optimizer state; gradients too; parameters too.
STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}


def zero_config(experiment: Experiment) -> dict[str, Any] | None:
    """DeepSpeed's configuration of an experiment; None without it.

    It names no optimizer: DeepSpeed would build its own in place of ours.
    """
    trainer = experiment.trainer
    if trainer.deepspeed == "none":
        return None
    # The second key is read in stage 3 alone: a checkpoint holds whole weights.
    zero = {"stage": STAGES[trainer.deepspeed], "stage3_gather_16bit_weights_on_model_save": True}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": trainer.batch_size // trainer.processes,
        "gradient_accumulation_steps": trainer.accumulation,
        # 0 is DeepSpeed's word for none.
        "gradient_clipping": experiment.optim.clip_norm,
    }


def keep_layers_whole(model: nn.Module) -> None:
    """Let DeepSpeed gather each routed layer's parameters together, for its forward and its backward pass.

    It finds a module's backward pass by the tensors that the module returns, and a router returns none as such.
    """
    from deepspeed.utils import set_z3_leaf_modules

    set_z3_leaf_modules(model, [MoeLayer], raise_if_not_found=False)


def say_nothing() -> None:
    """Let DeepSpeed, which accelerate imports in every run where it is installed, find no GPU without a warning."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def hush_deprecations() -> None:
    """Keep quiet what torch says, in each step, of the collectives that DeepSpeed calls by their old names."""
    old_names = ".*(all_gather_into_tensor|reduce_scatter_tensor)"
    warnings.filterwarnings("ignore", message=old_names, category=FutureWarning)


def compile_nothing() -> None:
    """Let ranks on the CPU share through gloo alone.

    DeepSpeed's own operation for it takes a minute to compile, and a compilation that was killed leaves a lock for
    which later runs wait without end.
    """
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def forget_configuration() -> None:
    """Let models be made as ever after a run: transformers would shard the next one while it is being made."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
