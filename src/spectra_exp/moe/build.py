"""Puts routed layers (or dense MLPs of equal active size) where a backbone has its MLPs."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from spectra_exp.moe.context import ContextHolder
from spectra_exp.moe.experts import DenseMlp
from spectra_exp.moe.layer import MoeLayer
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import Router, router_class
from spectra_exp.routing.learned_temperature import make_learned_temperature
from spectra_exp.routing.routers.hash import HashRouter


def install_layers(backbone: PreTrainedModel, settings: MoeSettings, holder: ContextHolder) -> list[MoeLayer]:
    """Replace the MLP of every decoder layer; returns the routed layers in order (none for `router=dense`)."""
    config = backbone.config
    routed: list[MoeLayer] = []
    for block in decoder_blocks(backbone):
        if settings.router.name == "dense":
            width = settings.top_k * settings.expert_size
            block.mlp = DenseMlp(
                config.hidden_size,
                width,
                settings.gated,
                settings.activation,
                config.initializer_range,
                settings.dropout,
            )
        else:
            # Routing is float32 whatever dtype the rest is built or loaded in.
            router = make_router(settings, config.hidden_size, config.vocab_size).float()
            block.mlp = MoeLayer(len(routed), config.hidden_size, settings, router, holder, config.initializer_range)
            routed.append(block.mlp)
    return routed


def decoder_blocks(backbone: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers of a Llama-style backbone: those with an `mlp` attribute, in order."""
    return [module for module in backbone.modules() if isinstance(getattr(module, "mlp", None), nn.Module)]


def make_router(settings: MoeSettings, hidden_size: int, vocabulary_size: int) -> Router:
    """One layer's router; SPECTRA also takes the transport options, the hash router the vocabulary's size."""
    cls = router_class(settings.router.name)
    extra = {"osr": settings.osr} if cls.uses_osr else {}
    if cls is HashRouter:
        extra["vocabulary_size"] = vocabulary_size
    router = cls(hidden_size, settings.num_experts, settings.top_k, settings.router, **extra)
    learned, value = settings.temperature.learned, settings.temperature.value
    router.learned_temperature = make_learned_temperature(learned, value, hidden_size, settings.num_experts)
    return router
