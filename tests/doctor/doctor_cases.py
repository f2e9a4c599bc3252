"""Tiny models for the doctor: stock families, and one of this project."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from sparse_families import VOCABULARY, sparse_model
from torch import Tensor

# Kernels in bfloat16 want rows of a multiple of 16 bytes; a window that a family does not have would cut its cache.
CHANGES: dict[str, Any] = dict(moe_intermediate_size=16, intermediate_size=16, shared_expert_intermediate_size=16)
WINDOWED = {"gpt_oss", "mimo_v2_flash", "afmoe", "laguna", "cohere2_moe", "exaone_moe", "gemma4_text", "granitemoe_swa"}
WINDOWED |= {"beam", "deepseek_v4", "flint", "inkling2_text", "inkling_text", "kolibri1"}


def stock(model_type: str, **changes: Any):
    """A tiny random model of a family, in evaluation mode."""
    window = {} if model_type in WINDOWED else {"sliding_window": None}
    return sparse_model(model_type, **(CHANGES | window | changes))


def batches(rows: int = 8, length: int = 32) -> list[Tensor]:
    """One batch of ids that are none of the special tokens."""
    return [torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))]


def made(model_type: str, dtype: torch.dtype):
    """The tiny model of a family; in bfloat16 as it is loaded in that dtype."""
    model = stock(model_type)
    if dtype == torch.float32:
        return model
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder, dtype=dtype).eval()
