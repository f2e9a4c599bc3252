"""Expert choice made causal: an expert takes every token whose score is above its running threshold.

Shapes: N real tokens, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.collective import all_rows
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterOutput, RoutingInput, register_router
from spectra_exp.routing.biased import sigmoid_scores
from spectra_exp.routing.quantiles import quantile
from spectra_exp.routing.varying import VaryingConfig, VaryingRouter

# Of a logit of 0, before the first step.
FIRST_THRESHOLD = 0.5


@dataclass
class ExpertThresholdConfig(VaryingConfig):
    """Options of the threshold router."""

    name: str = option("expert_threshold", "which router this is")
    decay: float = option(
        0.9,
        "part of the old threshold that each optimizer step keeps; 0 takes the last step's",
        minimum=0,
        maximum=0.9999,
    )


@register_router
class ExpertThresholdRouter(VaryingRouter):
    """Sigmoid scores s. Expert j takes a token where s_j > t_j, the average of the score that the top N k / E reach.

    It moves once per optimizer step, by the tokens of all ranks and micro-batches; the first step's counts whole.
    Selection takes s - t above 0; the weights are s alone.
    *Source:* Expert Threshold routing, arXiv 2603.11535.
    """

    Config = ExpertThresholdConfig
    config: ExpertThresholdConfig
    threshold_E: Tensor
    updates: Tensor
    label = "Expert Threshold"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: ExpertThresholdConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.register_buffer("threshold_E", torch.full((num_experts,), FIRST_THRESHOLD))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        # The scores of this step's passes; whole steps are saved, so this never is.
        self._scores: list[Tensor] = []

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.threshold_E.fill_(FIRST_THRESHOLD)
        self.updates.zero_()

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE = self.logits(inputs) / inputs.temperature
        scores_NE, probs_NE = sigmoid_scores(logits_NE)
        output = RouterOutput(scores_NE - self.threshold_E, scores_NE, probs_NE, logits_NE, self.linear.weight)
        if inputs.training:
            output.updates["scores"] = scores_NE.detach()
        return output

    @torch.no_grad()
    def commit(self, updates: dict[str, Tensor]) -> None:
        self._scores.append(updates["scores"])

    @torch.no_grad()
    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Move each threshold towards the step's; neither the counts nor the learning rate play a part."""
        if not self._scores:
            return
        reached_E = quantile(all_rows(torch.cat(self._scores)), 1 - self.top_k / self.num_experts)
        self._scores = []
        kept = torch.where(self.updates > 0, self.config.decay, 0.0)
        self.threshold_E.copy_(torch.lerp(reached_E, self.threshold_E, kept))
        self.updates += 1
