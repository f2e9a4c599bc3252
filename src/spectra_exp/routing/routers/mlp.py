"""A router of two layers, as large as SPECTRA's: the control for what parameters alone give.

Shapes: N real tokens, d hidden size, H width, E experts, D router dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from spectra_exp.foundations.bounds import LARGEST_WEIGHT, LARGEST_WIDTH
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, linear_init, register_router
from spectra_exp.routing.linear import softmax_output
from spectra_exp.routing.osr import OsrConfig
from spectra_exp.routing.routers.spectra import SpectraConfig, SpectraRouter
from spectra_exp.routing.sequence import ENCODERS


@dataclass
class MlpConfig(RouterConfig):
    """Options of the two-layer router."""

    name: str = option("mlp", "which router this is")
    load_balance_coef: float = option(
        0.01, "weight of the Switch load-balance loss E*sum(f*P)", minimum=0, maximum=LARGEST_WEIGHT
    )
    width: int | None = option(
        None,
        "H: hidden width; none: as many parameters as SPECTRA's router has with this dim and sequence",
        minimum=1,
        maximum=LARGEST_WIDTH,
    )
    dim: int = option(16, "D of the SPECTRA router that this one is as large as", minimum=1, maximum=LARGEST_WIDTH)
    sequence: str = option("min_gru", "encoder of the SPECTRA router that this one is as large as", choices=[*ENCODERS])


@register_router
class MlpRouter(Router):
    """softmax(V gelu(U h) / T) with Switch's load-balance loss; H is nearest to SPECTRA's parameters over d + E."""

    Config = MlpConfig
    label = "MLP"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: MlpConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        width = config.width
        if width is None:
            parameters = spectra_parameters(hidden_size, num_experts, config.dim, config.sequence)
            width = max(1, round(parameters / (hidden_size + num_experts)))
        self.up = nn.Linear(hidden_size, width, bias=False)
        self.down = nn.Linear(width, num_experts, bias=False)

    def reset_parameters(self) -> None:
        """Xavier-uniform below, so that the hidden units differ; logits as small as a linear router's."""
        nn.init.xavier_uniform_(self.up.weight)
        linear_init(self.down)

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE: Tensor = self.down(gelu(self.up(inputs.real(inputs.hidden_BSd))))
        return softmax_output(logits_NE / inputs.temperature, self.down.weight)


def spectra_parameters(hidden_size: int, num_experts: int, dim: int, sequence: str) -> int:
    """Parameters of one layer's SPECTRA router, counted on one that holds no values."""
    with torch.device("meta"):
        router = SpectraRouter(hidden_size, num_experts, 1, SpectraConfig(dim=dim, sequence=sequence), OsrConfig())
    return sum(p.numel() for p in router.parameters())
