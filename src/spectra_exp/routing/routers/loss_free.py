"""Auxiliary-loss-free balancing: a bias per expert, nudged against the load error, that acts on selection only.

Shapes: N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_RATE
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, register_router
from spectra_exp.routing.biased import SCORES, BiasedRouter


@dataclass
class LossFreeConfig(RouterConfig):
    """Options of the loss-free router."""

    name: str = option("loss_free", "which router this is")
    score: str = option("sigmoid", "what makes scores of the logits", choices=list(SCORES))
    bias_rate: float = option(
        1e-3, "step of each expert's bias per optimizer step, in units of the score", above=0, maximum=LARGEST_RATE
    )


@register_router
class LossFreeRouter(BiasedRouter):
    """*Source:* Wang et al. 2024 (arXiv 2408.15664), algorithm 1: b_i += rate * sign(mean load - load_i).

    The distribution is the scores over their sum, which for softmax they are already.
    """

    Config = LossFreeConfig
    config: LossFreeConfig
    label = "Loss-free"

    @property
    def score(self) -> str:
        return self.config.score

    @torch.no_grad()
    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Move each bias by the rate, whatever the size of the error; the learning rate plays no part."""
        self.bias_E += self.config.bias_rate * torch.sign(counts_E.mean() - counts_E)
