"""Hashes that prove two runs comparable."""

from __future__ import annotations

import hashlib

from torch import nn


def weights_hash(model: nn.Module) -> dict[str, str]:
    """16 hex digits over each parameter, by name: variants share those that exist in both."""
    return {
        name: hashlib.sha256(p.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]
        for name, p in model.named_parameters()
    }
