"""What routers by which tokens differ in their number of experts have in common."""

from __future__ import annotations

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.routing.base import RouterConfig
from spectra_exp.routing.linear import LinearRouter


class VaryingConfig(RouterConfig):
    """Options of a router whose K is a mean that it aims at."""

    def check_sizes(self, num_experts: int, top_k: int, tokens_per_pass: int, passes_per_step: int) -> None:
        if top_k >= num_experts:
            raise ConfigError(
                "model.top_k",
                f"router={self.name} decides which experts a token leaves out, and {top_k} of {num_experts} leave none",
                f"give at most {num_experts - 1}",
            )


class VaryingRouter(LinearRouter):
    """One linear map, whose scores choose every expert above 0; the weights are used as they are."""

    choosers = ("pair",)
    normalizes = False
