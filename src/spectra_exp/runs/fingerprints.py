"""Hashes that prove two runs comparable."""

from __future__ import annotations

import hashlib

from torch import nn


def weights_hash(model: nn.Module) -> dict[str, str]:
    """Shape and 16 hex digits over each parameter, by name: variants share those that exist in both."""
    return {name: f"{_shape(p)}:{_content(p)}" for name, p in model.named_parameters()}


def _shape(parameter: nn.Parameter) -> str:
    return "x".join(map(str, parameter.shape)) or "scalar"


def _content(parameter: nn.Parameter) -> str:
    return hashlib.sha256(parameter.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]
