"""Routers of one linear map whose bias per expert acts on selection alone, whatever moves it.

Shapes: N real tokens, E experts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput
from spectra_exp.routing.linear import LinearRouter

# Below this softplus(x) is exp(x) to float32's last digit.
SMALL_LOGIT = -15.0


def sigmoid_scores(logits_NE: Tensor) -> tuple[Tensor, Tensor]:
    """The sigmoid, and its shares of a token's sum."""
    # The same as scores / sum, and still a distribution where every sigmoid underflows.
    return torch.sigmoid(logits_NE), torch.softmax(logsigmoid(logits_NE), dim=-1)


def softmax_scores(logits_NE: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax, twice."""
    probs_NE = torch.softmax(logits_NE, dim=-1)
    return probs_NE, probs_NE


def sqrt_softplus_scores(logits_NE: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(softplus), and its shares of a token's sum. *Source:* DeepSeek-V4.

    By its logarithm: the root has an infinite slope where softplus underflows.
    """
    usual_NE = softplus(logits_NE.clamp(min=SMALL_LOGIT)).log()
    log_scores_NE = 0.5 * torch.where(logits_NE > SMALL_LOGIT, usual_NE, logits_NE)
    return log_scores_NE.exp(), torch.softmax(log_scores_NE, dim=-1)


# By name: logits [N, E] → (scores [N, E] ≥ 0, the distribution [N, E] that they are shares of).
SCORES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "sigmoid": sigmoid_scores,
    "softmax": softmax_scores,
    "sqrt_softplus": sqrt_softplus_scores,
}


class BiasedRouter(LinearRouter):
    """Selection ranks by score plus bias; the weights are of the scores alone."""

    bias_E: Tensor

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: RouterConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.register_buffer("bias_E", torch.zeros(num_experts))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.bias_E.zero_()

    @property
    def score(self) -> str:
        """Which of `SCORES`."""
        return "sigmoid"

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE = self.logits(inputs) / inputs.temperature
        weights_NE, probs_NE = SCORES[self.score](logits_NE)
        return RouterOutput(weights_NE + self.bias_E, weights_NE, probs_NE, logits_NE, self.linear.weight)


def check_next_expert(name: str, num_experts: int, top_k: int, tokens: int, which: str) -> None:
    """Raise ConfigError where no expert is left beside the k chosen, or there are fewer tokens than experts."""
    if top_k >= num_experts:
        raise ConfigError(
            "model.top_k",
            f"router={name} needs a (k+1)-th largest score, and {top_k} of {num_experts} experts leave none",
            f"give at most {num_experts - 1}",
        )
    if tokens < num_experts:
        raise ConfigError(
            "trainer.batch_size",
            f"router={name} ranks the tokens of {which}, and {tokens} are fewer than model.num_experts={num_experts}",
            "give more sequences, longer ones or fewer experts",
        )
