"""Puts routed layers (or dense MLPs of equal active size) where a backbone has its MLPs, or routers where gates are."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from spectra_exp.moe.context import ContextHolder
from spectra_exp.moe.experts import DenseMlp
from spectra_exp.moe.families import GATED, Site, dense_sites, sparse_blocks, sparse_family
from spectra_exp.moe.gate import ReroutedGate
from spectra_exp.moe.layer import MoeLayer, RoutedLayer
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import Router, router_class
from spectra_exp.routing.learned_temperature import make_learned_temperature


def install_layers(backbone: PreTrainedModel, settings: MoeSettings, holder: ContextHolder) -> list[RoutedLayer]:
    """Put routed layers into a backbone; returns them in order (none for `router=dense`)."""
    config = backbone.config
    match settings.origin:
        case "reroute":
            return install_gates(backbone, settings, holder)
        case "upcycle":
            sites = dense_sites(backbone)[settings.first_dense :]
        case _:
            sites = [Site(block, GATED) for block in decoder_blocks(backbone)]
    if not router_class(settings.router.name).routes:
        if settings.origin == "scratch":
            for site in sites:
                site.replace(_dense_mlp(config, settings))
        return []
    std = getattr(config, "initializer_range", 0.02)
    routed: list[RoutedLayer] = []
    for site in sites:
        # Routing is float32 whatever dtype the rest is built or loaded in.
        router = make_router(settings, config.hidden_size, config.vocab_size).float()
        routed.append(MoeLayer(len(routed), config.hidden_size, settings, router, holder, std))
        site.replace(routed[-1])
    return routed


def _dense_mlp(config: PreTrainedConfig, settings: MoeSettings) -> DenseMlp:
    """An MLP as wide as the K experts of a token are together."""
    width = settings.top_k * settings.expert_size
    return DenseMlp(
        config.hidden_size, width, settings.gated, settings.activation, config.initializer_range, settings.dropout
    )


def install_gates(backbone: PreTrainedModel, settings: MoeSettings, holder: ContextHolder) -> list[RoutedLayer]:
    """Put our routers in the place of a sparse model's gates; the blocks around them stay as they are."""
    config, gate_name = backbone.config, sparse_family(backbone.config).gate
    routed: list[RoutedLayer] = []
    for block in sparse_blocks(backbone):
        router = make_router(settings, config.hidden_size, config.vocab_size)
        if router.needs_source:
            router.take(getattr(block, gate_name), sparse_family(config).sigmoid)
        routed.append(ReroutedGate(len(routed), settings, router.float(), holder, block))
        setattr(block, gate_name, routed[-1])
    return routed


def decoder_blocks(backbone: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers of a Llama-style backbone: those with an `mlp` attribute, in order."""
    return [module for module in backbone.modules() if isinstance(getattr(module, "mlp", None), nn.Module)]


def make_router(settings: MoeSettings, hidden_size: int, vocabulary_size: int) -> Router:
    """One layer's router, with what it says that it uses besides its own options."""
    cls = router_class(settings.router.name)
    extra: dict[str, Any] = {"osr": settings.osr} if cls.uses_osr else {}
    if cls.uses_vocabulary:
        extra["vocabulary_size"] = vocabulary_size
    router = cls(hidden_size, settings.num_experts, settings.top_k, settings.router, **extra)
    learned, value = settings.temperature.learned, settings.temperature.value
    router.learned_temperature = make_learned_temperature(learned, value, hidden_size, settings.num_experts)
    return router
