"""Which implementation of attention a backbone computes with: the fastest that can work, or what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, LlamaConfig, PreTrainedConfig
from transformers.utils import is_flash_attn_2_available

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.devices import training_device
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.accounting import head_size
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.schema import SourceModelConfig
from spectra_exp.moe.source import attention_for, source_config, source_folder

KEY = "model.attention"
FLASH = "flash_attention_2"
# Limits of flash-attn 2's kernels: Ampere GPUs and later, heads of at most this width.
LEAST_CAPABILITY = (8, 0)
LARGEST_HEAD = 256


@dataclass(frozen=True)
class Attention:
    """name: transformers' word for an implementation. reason: why this one."""

    name: str
    reason: str


def choose_attention(experiment: Experiment, backbone: PreTrainedConfig, device: str) -> Attention:
    """The attention of a run on `device` (cpu, cuda). Raises ConfigError for one that was asked for and cannot work."""
    asked, plain = experiment.model.attention, attention_for(backbone)
    missing = what_flash_lacks(experiment, backbone, device)
    if asked == "auto":
        if missing is None:
            return Attention(FLASH, "it is installed, and the GPU and the model allow it")
        return Attention(plain, f"no {FLASH}: {missing}")
    problem = missing if asked == FLASH else None
    if asked == "sdpa" and plain != "sdpa":
        problem = f"the family {backbone.model_type} does not have it"
    if asked == "eager" and not experiment.data.cross_document:
        problem = "it does not keep packed documents apart (data.cross_document=false)"
    if problem is not None:
        raise ConfigError(KEY, f"'{asked}' cannot work here: {problem}", "give auto, which takes what can")
    return Attention(asked, "asked for")


def what_flash_lacks(experiment: Experiment, backbone: PreTrainedConfig, device: str) -> str | None:
    """Why flash-attention 2 cannot compute a run's attention; None where it can."""
    head = head_size(backbone)
    if device != "cuda":
        return "it needs a GPU"
    if not is_flash_attn_2_available():
        return "the package flash-attn (2.3.3 or later) is not installed: pip install 'spectra-exp[flash-attn]'"
    if torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is older than its kernels"
    if experiment.trainer.precision == "float32":
        return "it computes in 16 bits (trainer.precision=bf16)"
    if not experiment.data.cross_document:
        return "it takes no mask that keeps packed documents apart (data.cross_document=false)"
    if not MODEL_FOR_CAUSAL_LM_MAPPING[type(backbone)]._supports_flash_attn:
        return f"the family {backbone.model_type} does not have it"
    if head > LARGEST_HEAD or head % 8:
        return f"heads of width {head:g} are no multiple of 8 up to {LARGEST_HEAD}"
    return None


def check_attention(experiment: Experiment) -> None:
    """Raise ConfigError when the attention that was asked for cannot work, before anything is built."""
    model = experiment.model
    if isinstance(model, SourceModelConfig):
        backbone = source_config(source_folder(model))
    else:
        backbone = LlamaConfig(hidden_size=model.hidden_size, num_attention_heads=model.num_heads)
    choose_attention(experiment, backbone, training_device(experiment.trainer.device))


def use_attention(model: SpectraMoeForCausalLM, experiment: Experiment, device: str) -> Attention:
    """The attention that the model's backbone computes with from now on."""
    chosen = choose_attention(experiment, model.config.backbone, device)
    if chosen.name != model.backbone.config._attn_implementation:
        model.backbone.set_attn_implementation(chosen.name)
    return chosen
