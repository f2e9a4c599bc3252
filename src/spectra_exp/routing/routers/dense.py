"""No routing: the backbone with dense MLPs of the same active size (paper 5.3, item 5)."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.options import option
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, register_router


@dataclass
class DenseConfig(RouterConfig):
    """The dense backbone has no routing options."""

    name: str = option("dense", "which router this is")


@register_router
class DenseRouter(Router):
    """Marks a dense model: the model builder puts in MLPs of K times an expert's width and no router at all."""

    Config = DenseConfig
    routes = learned = False
    decides = True
    label = "Dense"

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        raise AssertionError("a dense model routes nothing")
