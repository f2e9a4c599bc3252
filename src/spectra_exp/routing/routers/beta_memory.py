"""A linear router that reads a decaying sum of the hidden states so far.

Shapes: B sequences, S tokens each, N real tokens, d hidden size, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.kernels import PLAIN
from spectra_exp.foundations.options import option
from spectra_exp.foundations.parts import part
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter, softmax_output
from spectra_exp.routing.sequence.recurrence import recurrence

# sigmoid of this is 0.9, the share of the memory that each token leaves at the start.
FIRST_DECAY = 2.197


@dataclass
class BetaMemoryConfig(RouterConfig):
    """Options of the router with a memory."""

    name: str = option("beta_memory", "which router this is")
    load_balance_coef: float = option(
        0.01, "weight of the Switch load-balance loss E*sum(f*P)", minimum=0, maximum=LARGEST_WEIGHT
    )
    recurrent: bool = option(True, "false: the control without a state, the same map W of the token alone")


@register_router
class BetaMemoryRouter(LinearRouter):
    """h_n = β∘h_{n−1} + x_n with β = sigmoid of a learned vector, logits W h_n; the state is [1, B, d].

    *Source:* arXiv 2605.00604.
    """

    Config = BetaMemoryConfig
    config: BetaMemoryConfig
    label = "β-memory"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: BetaMemoryConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.decay_d = nn.Parameter(torch.empty(hidden_size)) if config.recurrent else None
        # Of the scan that makes the memory, or None.
        self.kernel = PLAIN if config.recurrent else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.decay_d is not None:
            nn.init.constant_(self.decay_d, FIRST_DECAY)

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        if self.decay_d is None:
            return super().forward(inputs)
        with part("sequence"):
            hidden = inputs.split(inputs.hidden_BSd)
            first = None if inputs.state is None else inputs.state[0]
            keep = torch.sigmoid(self.decay_d).expand_as(hidden)
            memory = recurrence(keep, hidden, inputs.split_mask, first, self.kernel)
        logits_NE: Tensor = self.linear(inputs.real(inputs.join(memory)))
        output = softmax_output(logits_NE / inputs.temperature, self.linear.weight)
        output.state = memory[:, -1][None]
        return output

    def flops_per_token(self) -> float:
        """The map, and two operations per dimension of the memory."""
        return super().flops_per_token() + (2.0 * self.hidden_size if self.config.recurrent else 0.0)
