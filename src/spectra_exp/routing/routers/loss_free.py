"""Auxiliary-loss-free balancing: a bias per expert, nudged against the load error, that acts on selection only.

Shapes: N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_RATE
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter


@dataclass
class LossFreeConfig(RouterConfig):
    """Options of the loss-free router."""

    name: str = option("loss_free", "which router this is")
    score: str = option("sigmoid", "what makes scores of the logits", choices=["sigmoid", "softmax"])
    bias_rate: float = option(
        1e-3, "step of each expert's bias per optimizer step, in units of the score", above=0, maximum=LARGEST_RATE
    )


@register_router
class LossFreeRouter(LinearRouter):
    """*Source:* Wang et al. 2024 (arXiv 2408.15664), algorithm 1: b_i += rate * sign(mean load - load_i).

    The distribution is the scores over their sum, which for softmax they are already.
    """

    Config = LossFreeConfig
    label = "Loss-free"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: LossFreeConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.register_buffer("bias_E", torch.zeros(num_experts))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.bias_E.zero_()

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE = self.logits(inputs) / inputs.temperature
        if self.config.score == "sigmoid":
            weights_NE = torch.sigmoid(logits_NE)
            # The same as weights / sum, and still a distribution where every sigmoid underflows.
            probs_NE = torch.softmax(torch.nn.functional.logsigmoid(logits_NE), dim=-1)
        else:
            weights_NE = probs_NE = torch.softmax(logits_NE, dim=-1)
        return RouterOutput(weights_NE + self.bias_E, weights_NE, probs_NE, logits_NE, self.linear.weight)

    @torch.no_grad()
    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Move each bias by the rate, whatever the size of the error; the learning rate plays no part."""
        self.bias_E += self.config.bias_rate * torch.sign(counts_E.mean() - counts_E)
