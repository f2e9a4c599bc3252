"""Quantile balancing: each expert's bias is what would have given it its share of the step's tokens.

Shapes: N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.collective import all_rows, total_over_ranks
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.biased import BiasedRouter, check_next_expert
from spectra_exp.routing.quantiles import bounds, histogram, histogram_quantile, needed_bias, quantile


@dataclass
class QuantileConfig(RouterConfig):
    """Options of the quantile router."""

    name: str = option("quantile", "which router this is")
    estimator: str = option(
        "exact",
        "the quantile of all tokens of the step, gathered over ranks, or that of a histogram of 1000 bins per expert",
        choices=["exact", "histogram"],
    )
    ema: float = option(
        0.0, "weight of the old bias in the new one; 0: the step's own quantile alone", minimum=0, maximum=0.9999
    )

    def check_sizes(self, num_experts: int, top_k: int, tokens_per_pass: int, passes_per_step: int) -> None:
        check_next_expert(self.name, num_experts, top_k, tokens_per_pass * passes_per_step, "a step")


@register_router
class QuantileRouter(BiasedRouter):
    """Sigmoid scores s. A token takes expert j where s_j + b_j is above its (k+1)-th largest s + b, called alpha.

    So r_j = alpha - s_j is the bias that it would have needed, and the k/E quantile of r_j over tokens is the bias
    under which a share of k/E would have been served. It moves once per optimizer step, mean removed.
    *Source:* kexue.fm 11619; Kimi K3 report, 2.3.3 and appendix D.
    """

    Config = QuantileConfig
    config: QuantileConfig
    label = "Quantile"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: QuantileConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        # What this step's passes needed: rows, or their one histogram. Whole steps are saved, so this never is.
        self._needed: list[Tensor] = []

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        output = super().forward(inputs)
        if inputs.training:
            output.updates["needed_bias"] = needed_bias(output.weights_NE.detach(), self.bias_E, self.top_k)
        return output

    @torch.no_grad()
    def commit(self, updates: dict[str, Tensor]) -> None:
        needed_NE = updates["needed_bias"]
        if self.config.estimator == "exact":
            self._needed.append(needed_NE)
        else:
            counts_EH = histogram(needed_NE, *bounds(self.bias_E))
            self._needed = [counts_EH + sum(self._needed)]

    @torch.no_grad()
    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Take the step's quantile; neither the counts nor the learning rate play a part."""
        if not self._needed:
            return
        share = self.top_k / self.num_experts
        if self.config.estimator == "exact":
            bias_E = quantile(all_rows(torch.cat(self._needed)), share)
        else:
            bias_E = histogram_quantile(total_over_ranks(self._needed[0]), *bounds(self.bias_E), share)
        self._needed = []
        self.bias_E.lerp_(bias_E - bias_E.mean(), 1 - self.config.ema)
