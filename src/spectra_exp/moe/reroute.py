"""Another router for a sparse Hugging Face model; its experts, attention and everything else stay bit for bit."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from spectra_exp.moe.config import SpectraMoeConfig
from spectra_exp.moe.families import num_experts_of, renormalizes, sparse_blocks, sparse_family, weight_scale
from spectra_exp.moe.initial_weights import initialise
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.moe.upcycle import copy_backbone
from spectra_exp.routing.base import router_class
from spectra_exp.routing.linear import LinearRouter

log = logging.getLogger(__name__)


def rerouted_settings(source: PreTrainedModel, settings: MoeSettings, renormalize: bool | None) -> MoeSettings:
    """The settings with what the source decides; `renormalize`: None does as the source does."""
    config = source.config
    settings = replace(settings, origin="reroute", num_experts=num_experts_of(config))
    if router_class(settings.router.name).needs_source:
        # Its weights are final.
        return replace(settings, renormalize=False)
    wanted = renormalizes(config) if renormalize is None else renormalize
    return replace(settings, renormalize=wanted, weight_scale=weight_scale(config))


def reroute(
    source: PreTrainedModel, settings: MoeSettings, seed: int, renormalize: bool | None, keep_weights: bool
) -> SpectraMoeForCausalLM:
    """The source with our router in each sparse layer.

    New routers depend on `seed` and names alone. With `keep_weights` a router of one linear map starts from the
    source's where the source's rule is softmax and top-k, and the model then computes the source's logits.
    """
    settings = rerouted_settings(source, settings, renormalize)
    native = router_class(settings.router.name).needs_source
    if settings.top_k == 1 and (renormalizes(source.config) if native else settings.normalizes):
        log.warning(
            "k = 1, and a token's weight is divided by itself%s: it is 1 whatever the router says, so the language "
            "model's loss gives the router no gradient. %s",
            "" if renormalize else ", as in the source",
            "router=switch model.renormalize=false gives it one"
            if native
            else "model.renormalize=false gives it one, from logits that are not the source's",
        )
    # Its own balancing loss reads gates that are no longer there.
    own = copy.deepcopy(source.config)
    if hasattr(own, "output_router_logits"):
        own.output_router_logits = False
    config = SpectraMoeConfig(backbone=own, moe=settings.to_dict(), routing_seed=seed)
    model = SpectraMoeForCausalLM(config)
    initialise(model, seed, within=".router")
    copy_backbone(source, model)
    family = sparse_family(source.config)
    with torch.no_grad():
        for layer, block in zip(model.routed_layers, sparse_blocks(source), strict=True):
            gate, router = getattr(block, family.gate), layer.router
            if router.needs_source:
                router.get_submodule("gate").load_state_dict(gate.state_dict())
            elif keep_weights and family.softmax and isinstance(router, LinearRouter):
                router.linear.weight.copy_(gate.weight)
    model.tie_weights()
    return model
