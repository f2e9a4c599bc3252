"""Switch routing whose experts' router rows are pushed to right angles, beside the usual balance loss."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterOutput, RoutingInput, register_router
from spectra_exp.routing.losses import mean_squared_cosine
from spectra_exp.routing.routers.switch import SwitchConfig, SwitchRouter


@dataclass
class RouterOrthogonalityConfig(SwitchConfig):
    """Options of the router with orthogonal rows."""

    name: str = option("router_orthogonality", "which router this is")
    row_ortho_coef: float = option(
        0.01, "weight of the mean squared cosine of different experts' rows", minimum=0, maximum=LARGEST_WEIGHT
    )


@register_router
class RouterOrthogonalityRouter(SwitchRouter):
    """*Source:* ERNIE 4.5 report, the router's orthogonalisation loss. Its best weight moves far with the scale."""

    Config = RouterOrthogonalityConfig
    config: RouterOrthogonalityConfig
    label = "Orthogonal router"

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        output = super().forward(inputs)
        if inputs.training and self.config.row_ortho_coef:
            output.losses["row_ortho"] = mean_squared_cosine(self.linear.weight[None])
        return output

    def loss_coefficients(self, step: int, total_steps: int) -> dict[str, float]:
        own = {"row_ortho": self.config.row_ortho_coef} if self.config.row_ortho_coef else {}
        return super().loss_coefficients(step, total_steps) | own
