"""Small routers, layers and batches to test with.

Letters: B sequences, S tokens each, N real tokens, d hidden size, E experts, K experts per token, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectra_exp.moe.build import make_router
from spectra_exp.moe.context import ContextHolder, RoutingContext
from spectra_exp.moe.initial_weights import draws_itself
from spectra_exp.moe.layer import MoeLayer
from spectra_exp.moe.record import RoutingRecord
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import Router, RoutingInput, router_class
from spectra_exp.routing.osr import NoOsr, OsrConfig
from spectra_exp.routing.selection import SelectionConfig

HIDDEN, EXPERTS, VOCABULARY = 12, 4, 50


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values of that shape, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def settings_of(
    name: str, top_k: int = 2, rule: str | None = None, osr: OsrConfig | None = None, **options: Any
) -> MoeSettings:
    """Settings of a small layer; options are the router's own."""
    cls = router_class(name)
    return MoeSettings(
        EXPERTS,
        top_k,
        8,
        cls.Config(**options),
        osr or (OsrConfig() if cls.uses_osr else NoOsr()),
        SelectionConfig(rule=rule or cls.selections()[0]),
    )


def reset(module: torch.nn.Module, seed: int = 0) -> None:
    """Draw our modules' weights; linear maps ten times larger than at the start, so that logits matter."""
    torch.manual_seed(seed)
    child: Any
    for child in module.modules():
        if draws_itself(child):
            child.reset_parameters()
    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            child.weight.data.mul_(10)


def router_of(settings: MoeSettings, seed: int = 0) -> Router:
    """The router of these settings, with weights drawn from the seed."""
    router = make_router(settings, HIDDEN, VOCABULARY)
    reset(router, seed)
    router.set_token_counts(np.arange(VOCABULARY)[::-1].copy())
    return router


def layer_of(settings: MoeSettings, seed: int = 0) -> MoeLayer:
    """A layer with experts of these settings."""
    layer = MoeLayer(0, HIDDEN, settings, router_of(settings, seed), ContextHolder(), std=0.3)
    layer.experts.reset_parameters()
    return layer


def ids_of(b: int, s: int) -> Tensor:
    """Token ids, int64 [b, s]."""
    return torch.randint(VOCABULARY, (b, s), generator=torch.Generator().manual_seed(5))


def inputs_of(b: int = 3, s: int = 7, seed: int = 0, **fields: Any) -> RoutingInput:
    """What a router is called with; `fields` replace its own."""
    ids = ids_of(b, s)
    hidden_BSd = normal(b, s, HIDDEN, seed=seed)
    usual = RoutingInput(hidden_BSd, token_ids_BS=ids, previous_ids_BS=ids.roll(1, 1), noise_seed=3)
    return replace(usual, **fields)


def run_layer(
    layer: MoeLayer,
    hidden_BSd: Tensor,
    training: bool,
    mask_BS: Tensor | None = None,
    ids: Tensor | None = None,
    carry_BSED: Tensor | None = None,
) -> tuple[Tensor, RoutingRecord]:
    """(output, record) of one pass; `carry_BSED`: what the layer below, if there is one, hands on."""
    ids = ids_of(hidden_BSd.shape[0], hidden_BSd.shape[1]) if ids is None else ids
    context = RoutingContext(
        mask_BS=mask_BS, token_ids_BS=ids, previous_ids_BS=ids.roll(1, 1), noise_seed=3, training_rule=training
    )
    context.carries_BSED[-1] = carry_BSED
    with layer.holder.evaluation(context):
        output = layer(hidden_BSd)
    return output, context.records[0]
