"""The router of the temperature study: linear, noise in training, softmax over logits / T."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter


@dataclass
class TemperatureRouterConfig(RouterConfig):
    """Options of the temperature study's router."""

    name: str = option("temperature", "which router this is")
    load_balance_coef: float = option(
        0.01, "weight of the Switch load-balance loss E*sum(f*P)", minimum=0, maximum=LARGEST_WEIGHT
    )
    noise: float = option(
        0.1, "standard deviation of the noise added to the logits in training", minimum=0, maximum=LARGEST_WEIGHT
    )


@register_router
class TemperatureRouter(LinearRouter):
    """*Source:* paper/temperature_experiment.md. The noise is added before the division by T (docs/method.md 4).

    The chosen weights, renormalised over the k, equal a softmax over the top-k logits.
    """

    Config = TemperatureRouterConfig
    config: TemperatureRouterConfig
    label = "Temperature"

    def logits(self, inputs: RoutingInput) -> Tensor:
        logits_NE = super().logits(inputs)
        if inputs.training and self.config.noise:
            logits_NE = logits_NE + self.config.noise * torch.randn(
                logits_NE.shape, generator=inputs.generator(), device=logits_NE.device
            )
        return logits_NE
