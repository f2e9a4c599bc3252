"""A bias inside each sequence: what an expert was scored lately counts against it for the next tokens.

Shapes: B sequences, S tokens each, N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.kernels import PLAIN
from spectra_exp.foundations.options import option
from spectra_exp.foundations.parts import part
from spectra_exp.routing.base import RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.biased import SCORES
from spectra_exp.routing.linear import LinearRouter
from spectra_exp.routing.sequence.recurrence import recurrence


@dataclass
class CausalBiasConfig(RouterConfig):
    """Options of the router with a bias inside each sequence."""

    name: str = option("causal_bias", "which router this is")
    score: str = option("sigmoid", "what makes scores of the logits", choices=list(SCORES))
    strength: float = option(
        0.1,
        "an expert that had twice the mean score mass lately is lowered by this, in units of the score",
        minimum=0,
        maximum=LARGEST_WEIGHT,
    )
    decay: float = option(0.9, "what is left of a token's score mass one token later", minimum=0, maximum=0.9999)


@register_router
class CausalBiasRouter(LinearRouter):
    """m_n = γ m_{n−1} + (1−γ) q_n, the running mean of a token's shares q of its scores s, from 1/E at the start of a
    document; selection ranks s_n − strength (E m_{n−1} − 1), the weights are of s alone. The state is [1, B, E].

    A token's own scores are not in its bias, so it is causal; nor do they depend on what was chosen, so no loop runs
    over tokens, and a strength that is too large tilts the load the other way. *Source:* jonathanc.net,
    causal-routing-bias; kexue.fm 11760. *Departs:* shares of the mass, so that strength means the same for every E.
    """

    Config = CausalBiasConfig
    config: CausalBiasConfig
    kernel = PLAIN
    label = "Causal bias"

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE = self.logits(inputs) / inputs.temperature
        weights_NE, probs_NE = SCORES[self.config.score](logits_NE)
        with torch.no_grad(), part("sequence"):
            before_NE, state = self._mass_before(probs_NE, inputs)
        pressure_NE = self.config.strength * (self.num_experts * before_NE - 1)
        scores_NE = weights_NE.detach() - pressure_NE
        return RouterOutput(scores_NE, weights_NE, probs_NE, logits_NE, self.linear.weight, state=state)

    def _mass_before(self, probs_NE: Tensor, inputs: RoutingInput) -> tuple[Tensor, Tensor]:
        """Each token's running mean before itself, [N, E], and the state after the last token."""
        probs = inputs.split(inputs.placed(probs_NE))
        start_BE = torch.full_like(probs[:, 0], 1 / self.num_experts)
        first_BE = inputs.state[0] if isinstance(inputs.state, Tensor) else start_BE
        keep = torch.full_like(probs, self.config.decay)
        after = recurrence(keep, (1 - self.config.decay) * probs, inputs.split_mask, first_BE, self.kernel)
        before = torch.cat([first_BE[:, None], after[:, :-1]], dim=1)
        return inputs.real(inputs.join(before)), after[:, -1][None]

    def flops_per_token(self) -> float:
        """The map; running mean and bias take six operations per expert."""
        return super().flops_per_token() + 6.0 * self.num_experts
