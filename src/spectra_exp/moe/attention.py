"""Which implementation of attention a backbone computes with: the fastest that can work, or what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, LlamaConfig, PreTrainedConfig
from transformers.utils import is_flash_attn_2_available

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.accounting import head_size
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.schema import AttentionRequest, SourceModelConfig
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


def choose_attention(request: AttentionRequest, backbone: PreTrainedConfig) -> Attention:
    """The attention of a run. Raises ConfigError for one that was asked for and cannot work."""
    asked, plain = request.asked, attention_for(backbone)
    missing = what_flash_lacks(request, backbone)
    if asked == "auto":
        if missing is None:
            return Attention(FLASH, "it is installed, and the GPU and the model allow it")
        return Attention(plain, f"no {FLASH}: {missing}")
    problem = missing if asked == FLASH else None
    if asked == "sdpa" and plain != "sdpa":
        problem = f"the family {backbone.model_type} does not have it"
    if asked == "eager" and not request.cross_document:
        problem = "it does not keep packed documents apart (data.cross_document=false)"
    if problem is not None:
        raise ConfigError(KEY, f"'{asked}' cannot work here: {problem}", "give auto, which takes what can")
    return Attention(asked, "asked for")


def what_flash_lacks(request: AttentionRequest, backbone: PreTrainedConfig) -> str | None:
    """Why flash-attention 2 cannot compute a run's attention; None where it can."""
    head = head_size(backbone)
    if request.device != "cuda":
        return "it needs a GPU"
    if not is_flash_attn_2_available():
        return "the package flash-attn (2.3.3 or later) is not installed: pip install 'spectra-exp[flash-attn]'"
    if torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is older than its kernels"
    if request.precision == "float32":
        return "it computes in 16 bits (trainer.precision=bf16)"
    if not request.cross_document:
        return "it takes no mask that keeps packed documents apart (data.cross_document=false)"
    if not MODEL_FOR_CAUSAL_LM_MAPPING[type(backbone)]._supports_flash_attn:
        return f"the family {backbone.model_type} does not have it"
    if head > LARGEST_HEAD or head % 8:
        return f"heads of width {head:g} are no multiple of 8 up to {LARGEST_HEAD}"
    return None


def check_attention(model: Any, request: AttentionRequest) -> None:
    """Raise ConfigError when the attention asked for cannot work in the backbone of `model`, a model's schema."""
    if isinstance(model, SourceModelConfig):
        backbone = source_config(source_folder(model))
    else:
        backbone = LlamaConfig(hidden_size=model.hidden_size, num_attention_heads=model.num_heads)
    choose_attention(request, backbone)


def use_attention(model: SpectraMoeForCausalLM, request: AttentionRequest) -> Attention:
    """The attention that the model's backbone computes with from now on."""
    chosen = choose_attention(request, model.config.backbone)
    if chosen.name != model.backbone.config._attn_implementation:
        model.backbone.set_attn_implementation(chosen.name)
    return chosen
