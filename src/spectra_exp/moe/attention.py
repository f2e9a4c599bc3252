"""Which implementation of attention a backbone computes with: the fastest that can work, or what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import AttentionRequest

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
    if not _model_class(backbone)._supports_flash_attn:
        return f"the family {backbone.model_type} does not have it"
    if head > LARGEST_HEAD or head % 8:
        return f"heads of width {head:g} are no multiple of 8 up to {LARGEST_HEAD}"
    return None


def use_attention(model: PreTrainedModel, request: AttentionRequest) -> Attention:
    """The attention that the model's backbone computes with from now on."""
    chosen = choose_attention(request, model.config.backbone)
    backbone: Any = model.backbone
    if chosen.name != backbone.config._attn_implementation:
        backbone.set_attn_implementation(chosen.name)
    return chosen


def keeps_documents_apart(config: PreTrainedConfig) -> bool:
    """Whether the backbone's attention obeys a mask of packed documents: the fused kernel, without windows or ALiBi."""
    kinds = getattr(config, "layer_types", None)
    window = bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)
    slides = any(kind != "full_attention" for kind in kinds) if kinds else window
    return attention_for(config) == "sdpa" and not slides and not getattr(config, "alibi", False)


def attention_for(config: PreTrainedConfig) -> str:
    """PyTorch's fused attention where the backbone has it, else the plain one."""
    return "sdpa" if _model_class(config)._supports_sdpa else "eager"


def _model_class(config: PreTrainedConfig) -> Any:
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def head_size(config) -> float:
    """Width of one attention head; the mean of those of its keys and its values where they differ."""
    if hasattr(config, "v_head_dim"):
        return (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim) / 2
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
