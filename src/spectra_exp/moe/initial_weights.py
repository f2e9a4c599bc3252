"""Weights of a new model, each module's from a seed of its own name."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def seed_from(*parts: Any) -> int:
    """A 62-bit seed that depends on every part, the same on every machine."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def draws_itself(module: nn.Module) -> bool:
    """Whether `reset_parameters` is a router's or an expert's own, a plug-in's too, and not a library's."""
    library = type(module).__module__.partition(".")[0] in ("torch", "transformers")
    return hasattr(module, "reset_parameters") and not library


def initialise(model: PreTrainedModel, seed: int, within: str = "") -> None:
    """Draw all weights, or those of modules with `within` in their name, each module's from a seed of its own name.

    A parameter that exists in two variants then starts equal in both. Linear and embedding weights are normal with
    the backbone's `initializer_range`, biases 0, norms 1; routers and experts follow their own rules.
    """
    std = getattr(model.config.backbone, "initializer_range", 0.02)
    # Models are made on the CPU: torch.manual_seed would seed the GPUs' generators too, which takes far longer.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        named = [(name, module) for name, module in model.named_modules() if within in name]
        for name, module in named:
            torch.default_generator.manual_seed(seed_from(seed, name))
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=std)
                if isinstance(bias := getattr(module, "bias", None), Tensor):
                    nn.init.zeros_(bias)
            elif "norm" in type(module).__name__.lower():
                nn.init.ones_(module.weight)
        # Backwards, so that of layers that share a router the first has the last word, as it has alone.
        for name, module in reversed(named):
            if draws_itself(module):
                torch.default_generator.manual_seed(seed_from(seed, name))
                module.reset_parameters()
