"""Balancing by the dual of an assignment problem that each training batch solves for itself.

Shapes: N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import MOST_ITERATIONS
from spectra_exp.foundations.collective import ALONE, Ranks
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.biased import BiasedRouter, check_next_expert


@dataclass
class BipConfig(RouterConfig):
    """Options of the router by binary integer programming."""

    name: str = option("bip", "which router this is")
    score: str = option("sigmoid", "what makes scores of the logits", choices=["sigmoid", "softmax"])
    iterations: int = option(4, "rounds of the dual per pass", unit="rounds", minimum=1, maximum=MOST_ITERATIONS)

    def check_sizes(self, num_experts: int, top_k: int, tokens_per_pass: int, passes_per_step: int) -> None:
        check_next_expert(self.name, num_experts, top_k, tokens_per_pass, "a batch")


@register_router
class BipRouter(BiasedRouter):
    """Selection by s - q, q the experts' prices under which the batch of all ranks loads each with N k / E at most.

    In training the batch sets its own prices, from those of the batch before: not causal. In evaluation they stay.
    The bias kept is -q. *Source:* Sun 2025 (arXiv 2502.15451), algorithm 1, which leaves the scores open.
    """

    Config = BipConfig
    config: BipConfig
    label = "BIP"
    two_rules = "router=bip: training by the batch's own prices, evaluation by those that training left"

    @property
    def score(self) -> str:
        return self.config.score

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        output = super().forward(inputs)
        if inputs.training:
            scores_NE = output.weights_NE.detach()
            bias_E = dual_bias(scores_NE, self.bias_E, self.top_k, self.config.iterations, inputs.ranks)
            output.scores_NE = output.weights_NE + bias_E
            output.updates["bias"] = bias_E
        return output

    @torch.no_grad()
    def commit(self, updates: dict[str, Tensor]) -> None:
        """Keep the batch's prices for the next one. Running the pass again starts from those that it started from."""
        self.bias_E.copy_(updates["bias"])


@torch.no_grad()
def dual_bias(scores_NE: Tensor, bias_E: Tensor, top_k: int, iterations: int, ranks: Ranks = ALONE) -> Tensor:
    """Minus the prices q, [E], after some rounds from those of `bias_E`; the order statistics are over all ranks.

    p_n = max(0, (k+1)-th largest of s_nj - q_j over experts); q_j = max(0, (floor(N k / E) + 1)-th largest of
    s_nj - p_n over tokens).
    """
    rows_NE = ranks.rows(scores_NE)
    num_tokens, num_experts = rows_NE.shape
    if not num_tokens:
        return bias_E
    # kthvalue counts from the smallest.
    place = num_tokens - num_tokens * top_k // num_experts
    for _ in range(iterations):
        price_N1 = (rows_NE + bias_E).topk(top_k + 1, dim=1).values[:, -1:].clamp(min=0)
        bias_E = -(rows_NE - price_N1).kthvalue(place, dim=0).values.clamp(min=0)
    return bias_E
