"""Switch routing: a linear map, softmax, top-1 or top-2, a load-balance loss, input jitter in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter


@dataclass
class SwitchConfig(RouterConfig):
    """Options of the Switch router."""

    name: str = option("switch", "which router this is")
    load_balance_coef: float = option(
        0.01, "weight of the Switch load-balance loss E*sum(f*P)", minimum=0, maximum=LARGEST_WEIGHT
    )
    jitter: float = option(0.01, "training noise: the inputs times U(1-jitter, 1+jitter)", minimum=0, maximum=0.99)


@register_router
class SwitchRouter(LinearRouter):
    """*Source:* Fedus et al. 2021 (Switch Transformers), 2.2 and table 11 (jitter 1e-2)."""

    Config = SwitchConfig
    config: SwitchConfig
    label = "Switch"

    def logits(self, inputs: RoutingInput) -> Tensor:
        hidden_Nd = inputs.real(inputs.hidden_BSd)
        if inputs.training and self.config.jitter:
            noise = torch.empty_like(hidden_Nd).uniform_(
                1 - self.config.jitter, 1 + self.config.jitter, generator=inputs.generator()
            )
            hidden_Nd = hidden_Nd * noise
        return self.linear(hidden_Nd)
