"""Recurrence over depth: one GRU, the same for all layers, whose state a token takes from layer to layer.

Shapes: B sequences, S tokens each, N real tokens, d hidden size, H width, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from spectra_exp.foundations.bounds import LARGEST_WEIGHT, LARGEST_WIDTH
from spectra_exp.foundations.options import option
from spectra_exp.foundations.parts import part
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, linear_init, register_router
from spectra_exp.routing.linear import softmax_output
from spectra_exp.routing.sequence.rnn import reset_gates


@dataclass
class RmoeConfig(RouterConfig):
    """Options of the router with a recurrence over layers."""

    name: str = option("rmoe", "which router this is")
    load_balance_coef: float = option(
        0.01, "weight of the Switch load-balance loss E*sum(f*P)", minimum=0, maximum=LARGEST_WEIGHT
    )
    width: int = option(128, "H: width of the projected token and of the state", minimum=1, maximum=LARGEST_WIDTH)
    recurrent: bool = option(True, "false: the control without a state, the same GRU from zero in every layer")


@register_router
class RmoeRouter(Router):
    """h_l = GRU(P_l x_l, h_{l−1}), logits W_l h_l; projection and logits are a layer's own, the GRU is all layers'.

    It sees one token alone, so nothing travels with a cache. *Source:* arXiv 2408.06793.
    """

    Config = RmoeConfig
    config: RmoeConfig
    label = "RMoE"
    shared_parts = ("gru.",)

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: RmoeConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.projection = nn.Linear(hidden_size, config.width, bias=False)
        self.gru = nn.GRU(config.width, config.width, batch_first=True)
        self.linear = nn.Linear(config.width, num_experts, bias=False)

    def reset_parameters(self) -> None:
        # First, so that layers that share it draw the same whatever else they have.
        reset_gates(self.gru, 3)
        nn.init.xavier_uniform_(self.projection.weight)
        linear_init(self.linear)

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        projected_BSH = self.projection(inputs.hidden_BSd)
        below_BSH = torch.zeros_like(projected_BSH)
        if self.config.recurrent and inputs.carry_BSED is not None:
            below_BSH = inputs.carry_BSED[..., 0, :]
        with part("sequence"):
            # A sequence of one step for each token: the kernel's batch is the tokens.
            state_M1H, _ = self.gru(projected_BSH.flatten(0, 1)[:, None], below_BSH.flatten(0, 1)[None])
        state_BSH = state_M1H.view_as(projected_BSH)
        output = softmax_output(self.linear(inputs.real(state_BSH)) / inputs.temperature, self.linear.weight)
        output.carry_BSED = state_BSH[..., None, :]
        return output
