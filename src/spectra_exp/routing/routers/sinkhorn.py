"""Linear scores whose balanced assignment by Sinkhorn selects in training.

Shapes: N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.bounds import LARGEST_WEIGHT, MOST_ITERATIONS
from spectra_exp.foundations.kernels import PLAIN
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.linear import LinearRouter
from spectra_exp.routing.sinkhorn import sinkhorn


@dataclass
class SinkhornConfig(RouterConfig):
    """Options of the Sinkhorn router."""

    name: str = option("sinkhorn", "which router this is")
    epsilon: float = option(1.0, "entropic regularisation, in units of the logits", above=0, maximum=LARGEST_WEIGHT)
    iterations: int = option(10, "column-and-row scalings", unit="iterations", minimum=1, maximum=MOST_ITERATIONS)
    inference: str = option(
        "softmax",
        "what selects in inference: each token's own softmax, or Sinkhorn over the batch (not causal)",
        choices=["softmax", "sinkhorn"],
    )


@register_router
class SinkhornRouter(LinearRouter):
    """*Source:* Clark et al. 2022 (Unified scaling laws for routed language models), S-BASE.

    The plan selects and carries no gradient; weights and distribution are the plain softmax, in training too.
    *Departs:* a fixed number of iterations in place of a tolerance; top-k for any k, there top-1.
    """

    Config = SinkhornConfig
    config: SinkhornConfig
    label = "Sinkhorn"
    kernel = PLAIN
    two_rules = "training by the transport plan, evaluation by router.inference={router.inference}"

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        output = super().forward(inputs)
        if inputs.training or self.config.inference == "sinkhorn":
            assert output.logits_NE is not None
            plan = sinkhorn(
                -output.logits_NE.detach(),
                self.config.epsilon,
                self.config.iterations,
                ranks=inputs.ranks,
                kernel=self.kernel,
            )
            output.scores_NE, output.figures["sinkhorn_residual"] = plan.log_plan_NE, plan.residual
        return output

    def flops_per_token(self) -> float:
        """The linear map, and the scalings where inference makes them (8 per expert and iteration)."""
        scaled = self.config.inference == "sinkhorn"
        return super().flops_per_token() + scaled * 8.0 * self.num_experts * self.config.iterations
