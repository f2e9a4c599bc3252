"""Switch routing with two more losses: experts' outputs on one token at right angles, and scores that vary over tokens.

Shapes: N real tokens, A assignments, E experts, K experts per token, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterOutput, RoutingInput, register_router
from spectra_exp.routing.losses import mean_squared_cosine, score_variance_loss
from spectra_exp.routing.routers.switch import SwitchConfig, SwitchRouter
from spectra_exp.routing.selection import SELECTIONS


@dataclass
class OutputOrthogonalityConfig(SwitchConfig):
    """Options of the router with orthogonal experts' outputs."""

    name: str = option("output_orthogonality", "which router this is")
    output_ortho_coef: float = option(
        0.01, "weight of the mean squared cosine of a token's experts' outputs", minimum=0, maximum=LARGEST_WEIGHT
    )
    variance_coef: float = option(
        0.01, "weight of minus the variance over tokens of the probabilities", minimum=0, maximum=LARGEST_WEIGHT
    )

    def check_sizes(self, num_experts: int, top_k: int, tokens_per_pass: int, passes_per_step: int) -> None:
        if top_k < 2 and self.output_ortho_coef:
            raise ConfigError(
                "model.top_k",
                f"router={self.name} compares the outputs of a token's experts, and {top_k} leaves none to compare",
                "give at least 2",
            )


@register_router
class OutputOrthogonalityRouter(SwitchRouter):
    """*Source:* Guo et al. 2025 (arXiv 2505.22323). *Departs:* the squared cosine of two outputs takes the place of the
    length of one's projection on the other, which the experts' scale would decide.

    In training it needs each assignment's output once more: 2 K^2 d operations and K d numbers per token.
    """

    Config = OutputOrthogonalityConfig
    config: OutputOrthogonalityConfig
    label = "Orthogonal outputs"
    needs_outputs = True

    @classmethod
    def selections(cls) -> list[str]:
        return [name for name in super().selections() if SELECTIONS[name].at_most_k]

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        output = super().forward(inputs)
        if inputs.training and self.config.variance_coef:
            assert output.probs_NE is not None
            output.losses["score_variance"] = score_variance_loss(output.probs_NE, inputs.ranks)
        return output

    def losses_of_outputs(
        self, outputs_Ad: Tensor, token_A: Tensor, expert_A: Tensor, chosen_NE: Tensor
    ) -> dict[str, Tensor]:
        if not self.config.output_ortho_coef:
            return {}
        # Each assignment's place among its token's; entries that only fill the list up are zero, wherever they go.
        place_A = (chosen_NE.cumsum(1)[token_A, expert_A] - 1).clamp(0, self.top_k - 1)
        n, d = len(chosen_NE), outputs_Ad.shape[1]
        outputs_Ad = outputs_Ad.float()
        slots = outputs_Ad.new_zeros(n * self.top_k, d).index_add(0, token_A * self.top_k + place_A, outputs_Ad)
        return {"output_ortho": mean_squared_cosine(slots.view(n, self.top_k, d))}

    def loss_coefficients(self, step: int, total_steps: int) -> dict[str, float]:
        own = {"output_ortho": self.config.output_ortho_coef, "score_variance": self.config.variance_coef}
        return super().loss_coefficients(step, total_steps) | {name: value for name, value in own.items() if value}
