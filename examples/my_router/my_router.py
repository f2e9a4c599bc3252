"""A router of one's own: a linear map whose logits are sharpened. Copy this folder and change it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter


@dataclass
class MyRouterConfig(RouterConfig):
    """Its options; what is typed for them is checked against the limits."""

    name: str = option("my_router", "which router this is")
    sharpness: float = option(2.0, "what the logits are multiplied by", above=0)


@register_router
class MyRouter(LinearRouter):
    """Scores of a linear map, multiplied by `router.sharpness`."""

    Config = MyRouterConfig
    label = "My router"

    def logits(self, inputs: RoutingInput) -> Tensor:
        """Scores before the softmax, [N, E]."""
        return self.config.sharpness * super().logits(inputs)
