"""Similarity-preserving routing: the router's matrix is held near orthonormal, in place of a balance loss."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter
from spectra_exp.routing.losses import distance_from_orthonormal


@dataclass
class SimbalConfig(RouterConfig):
    """Options of the similarity-preserving router."""

    name: str = option("simbal", "which router this is")
    similarity_coef: float = option(
        0.1, "weight of |W W^T - I|, summed over the entries", minimum=0, maximum=LARGEST_WEIGHT
    )


@register_router
class SimbalRouter(LinearRouter):
    """Linear, softmax; the loss keeps the experts' rows of length 1 and at right angles: alike tokens stay alike.

    *Source:* Omi, Sen and Farhadi 2025 (arXiv 2506.14038). *Departs:* initial weights are those of the other linear
    routers, which are 0.02 in size; the loss brings them to length 1.
    """

    Config = SimbalConfig
    config: SimbalConfig
    label = "SimBal"

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        output = super().forward(inputs)
        if inputs.training and self.config.similarity_coef:
            output.losses["similarity"] = distance_from_orthonormal(self.linear.weight)
        return output

    def loss_coefficients(self, step: int, total_steps: int) -> dict[str, float]:
        own = {"similarity": self.config.similarity_coef} if self.config.similarity_coef else {}
        return super().loss_coefficients(step, total_steps) | own
