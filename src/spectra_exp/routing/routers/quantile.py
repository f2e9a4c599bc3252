"""Quantile balancing: each expert's bias is what would have given it its share of the step's tokens.

Shapes: N real tokens, E experts, H bins of a histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.collective import all_rows, total_over_ranks
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.biased import BiasedRouter, check_next_expert

BINS = 1000


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


def needed_bias(scores_NE: Tensor, bias_E: Tensor, top_k: int) -> Tensor:
    """What bias each token would have needed at each expert to be served there, [N, E]."""
    cutoff_N1 = (scores_NE + bias_E).topk(top_k + 1, dim=-1).values[:, -1:]
    return cutoff_N1 - scores_NE


def quantile(values_NE: Tensor, share: float) -> Tensor:
    """The value of each column below which the share of its N lies, [E], halfway to the next (Hazen's definition)."""
    last = len(values_NE) - 1
    place = min(max(share * len(values_NE) - 0.5, 0.0), float(last))
    low = math.floor(place)
    sorted_NE = values_NE.sort(dim=0).values
    return torch.lerp(sorted_NE[low], sorted_NE[min(low + 1, last)], place - low)


def bounds(bias_E: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest bias that a token with scores in 0..1 can need."""
    return bias_E.min() - 1, bias_E.max() + 1


def histogram(values_NE: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How many of each column's values lie in each bin, int64 [E, H]."""
    bins_NE = ((values_NE - low) * (BINS / (high - low))).long().clamp(0, BINS - 1)
    counts_EH = bins_NE.new_zeros(values_NE.shape[1], BINS)
    return counts_EH.scatter_add_(1, bins_NE.T, torch.ones_like(bins_NE.T))


def histogram_quantile(counts_EH: Tensor, low: Tensor, high: Tensor, share: float) -> Tensor:
    """The quantile of each row's histogram, [E], linear within its bin."""
    below_EH = counts_EH.cumsum(dim=1).double()
    wanted_E1 = share * below_EH[:, -1:]
    bin_E1 = torch.searchsorted(below_EH, wanted_E1).clamp(max=BINS - 1)
    inside_E1 = counts_EH.gather(1, bin_E1)
    part_E1 = (wanted_E1 - below_EH.gather(1, bin_E1) + inside_E1) / inside_E1.clamp(min=1)
    return low + ((bin_E1 + part_E1) / BINS).squeeze(1).to(low.dtype) * (high - low)
