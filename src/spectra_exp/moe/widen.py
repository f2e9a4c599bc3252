"""Experts as wide as makes a model equal in size to SPECTRA's: in active parameters, or in FLOPs per token."""

from __future__ import annotations

from dataclasses import replace

import torch

from spectra_exp.moe.build import make_router
from spectra_exp.moe.schema import REFERENCE
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import router_class
from spectra_exp.routing.osr import OsrConfig


def widened(settings: MoeSettings, hidden_size: int, measure: str) -> int:
    """The hidden width of one expert by which a model of `settings` is as large as SPECTRA's with its default options.

    `measure`: `active` for active parameters, `flops` for FLOPs per token. What the routers differ in goes to the
    experts that a token executes, to the nearest whole width, at least 1.
    """
    reference = replace(settings, router=router_class(REFERENCE).Config(), osr=OsrConfig())
    own, other = (_router_size(made, hidden_size, measure) for made in (settings, reference))
    matrices = 3 if settings.gated else 2
    executed = settings.top_k + settings.num_shared
    per_width = executed * matrices * hidden_size * (2 if measure == "flops" else 1)
    return max(1, settings.expert_size + round((other - own) / per_width))


def _router_size(settings: MoeSettings, hidden_size: int, measure: str) -> float:
    """Parameters of a layer's router, or its FLOPs per token."""
    with torch.device("meta"):
        # None of the routers compared has a table of the vocabulary among its parameters.
        router = make_router(settings, hidden_size, vocabulary_size=1)
    return router.flops_per_token() if measure == "flops" else sum(p.numel() for p in router.parameters())
