"""A router, a selection rule, a metric and a data source from outside the package, each by its recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.data.documents import Document, Splits, digest
from spectra_exp.data.schema import DataConfig, register_source
from spectra_exp.foundations.options import option
from spectra_exp.measure.base import metric
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.routing.base import RouterConfig, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter
from spectra_exp.routing.selection import selection_rule


@dataclass
class ThrowawayConfig(RouterConfig):
    """Options of the router that is thrown away."""

    name: str = option("throwaway", "which router this is")
    sharpness: float = option(2.0, "what the logits are multiplied by", above=0)


@register_router
class ThrowawayRouter(LinearRouter):
    """A linear map whose logits are sharpened."""

    Config = ThrowawayConfig
    label = "Thrown away"

    def logits(self, inputs: RoutingInput) -> Tensor:
        return self.config.sharpness * super().logits(inputs)


@selection_rule("throwaway", sees_other_tokens=False)
def select_above_mean(scores_NE: Tensor, top_k: int, capacity_factor: float) -> Tensor:
    """Assignments, bool [N, E]: each token's experts that score no less than its mean, however many."""
    return scores_NE >= scores_NE.mean(dim=1, keepdim=True) if len(scores_NE) else torch.zeros_like(scores_NE).bool()


@metric("busiest_share", "lower", "share", range=("1/E", 1), floor="marginals")
def busiest_share(stats: LayerStatistics) -> float | None:
    """Share of the load that the busiest expert has."""
    return float(stats.counts_E.max() / stats.counts_E.sum()) if stats.counts_E.any() else None


@register_source
@dataclass
class ThrowawayData(DataConfig):
    """Two domains that count up and down."""

    name: str = option("throwaway", "where the documents come from", choices=("throwaway",))
    documents: int = option(60, "documents of each domain", minimum=10)

    def check(self) -> None:
        """Nothing can be wrong."""

    def content_digest(self) -> str:
        return digest("throwaway", self.documents)

    def read_splits(self) -> Splits:
        made = []
        for start in range(self.documents):
            up = [str(number) for number in range(start, start + 100)]
            for domain, words in (("up", up), ("down", up[::-1])):
                made.append(Document(" ".join(words), domain, f"{domain}/{start}"))
        return Splits(made[20:], made[:20])
