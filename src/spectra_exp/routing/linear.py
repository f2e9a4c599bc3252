"""What routers with one linear map and a softmax share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, linear_init


def softmax_output(logits_NE: Tensor, representation_ED: Tensor) -> RouterOutput:
    """Weights and distribution are the same probabilities, and scores their logarithm.

    The logarithm ranks alike, and still ranks experts whose probability underflows to 0 at a small temperature.
    """
    scores_NE = torch.log_softmax(logits_NE, dim=-1)
    probs_NE = scores_NE.exp()
    return RouterOutput(scores_NE, probs_NE, probs_NE, logits_NE, representation_ED)


class LinearRouter(Router):
    """softmax(W h / T)."""

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: RouterConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.linear = nn.Linear(hidden_size, num_experts, bias=False)

    def reset_parameters(self) -> None:
        linear_init(self.linear)

    def logits(self, inputs: RoutingInput) -> Tensor:
        """Logits [N, E] of the real tokens before the temperature."""
        return self.linear(inputs.real(inputs.hidden_BSd))

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        return softmax_output(self.logits(inputs) / inputs.temperature, self.linear.weight)
