"""ReLU routing: an expert's gate is its logit where that is positive; an L1 loss finds the number of experts.

Shapes: N real tokens, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import LARGEST_WEIGHT
from spectra_exp.foundations.collective import Ranks, total_over_ranks
from spectra_exp.foundations.options import option
from spectra_exp.routing.base import RouterOutput, RoutingInput, register_router
from spectra_exp.routing.varying import VaryingConfig, VaryingRouter


@dataclass
class RemoeConfig(VaryingConfig):
    """Options of the ReLU router."""

    name: str = option("remoe", "which router this is")
    l1_start: float = option(
        1e-8, "coefficient of the L1 loss on the gates at the start", above=0, maximum=LARGEST_WEIGHT
    )
    l1_factor: float = option(
        1.2,
        "the coefficient is multiplied by this after a step with more than k experts a token, divided after one with "
        "fewer",
        above=1,
        maximum=2,
    )


@register_router
class RemoeRouter(VaryingRouter):
    """*Source:* Wang et al. 2024 (ReMoE, arXiv 2412.14711), 3.2 to 3.4.

    The sparsity that moves the coefficient is that of all layers together, so that there is one for all; each layer
    keeps a copy.
    """

    Config = RemoeConfig
    config: RemoeConfig
    coefficient: Tensor
    # Assignments and tokens of the last whole step on all ranks; none is known before.
    step_taken: Tensor
    label = "ReMoE"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: RemoeConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        # Float32 whatever the default is: it starts far below 1.
        self.register_buffer("coefficient", torch.tensor(config.l1_start, dtype=torch.float32))
        # Tokens so far in the step, on this rank. Never saved: the next step begins anew.
        self._tokens: Tensor | None = None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.coefficient.fill_(self.config.l1_start)

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        logits_NE = self.logits(inputs) / inputs.temperature
        gates_NE = logits_NE.relu()
        output = RouterOutput(logits_NE, gates_NE, shares(gates_NE), logits_NE, self.linear.weight)
        if inputs.training:
            output.losses["gate_l1"] = self.coefficient * self.balanced_l1(gates_NE, inputs.ranks)
            output.updates["tokens"] = gates_NE.new_full((), len(gates_NE), dtype=torch.int64)
        return output

    def balanced_l1(self, gates_NE: Tensor, ranks: Ranks) -> Tensor:
        """Mean over tokens of the sum of gates, each expert's weighted by its load over the even one, E c_e / (k N).

        The loads are those of all ranks' tokens.
        """
        loads_E = ranks.sum((gates_NE.detach() > 0).sum(0))
        weight_E = loads_E * (self.num_experts / (self.top_k * max(ranks.tokens(gates_NE), 1)))
        return (gates_NE * weight_E).sum() / max(len(gates_NE), 1)

    def loss_coefficients(self, step: int, total_steps: int) -> dict[str, float]:
        # The coefficient is a tensor on the device, and in the term already.
        return super().loss_coefficients(step, total_steps) | {"gate_l1": 1.0}

    @torch.no_grad()
    def commit(self, updates: dict[str, Tensor]) -> None:
        self._tokens = updates["tokens"] if self._tokens is None else self._tokens + updates["tokens"]

    @torch.no_grad()
    def after_step(self, counts_E: Tensor, learning_rate_scale: float) -> None:
        """Close the step's count, that of all ranks."""
        if self._tokens is not None:
            self.step_taken = torch.stack([counts_E.long().sum(), total_over_ranks(self._tokens)])
            self._tokens = None

    @torch.no_grad()
    def agree(self, layers: Sequence[Self]) -> None:
        """Raise or lower the coefficient by the number of experts per token over all layers."""
        assignments, tokens = torch.stack([layer.step_taken for layer in layers]).sum(0)
        self.coefficient *= self.config.l1_factor ** torch.sign((assignments - self.top_k * tokens).float())


def shares(gates_NE: Tensor) -> Tensor:
    """Each gate over the token's sum; even ones for a token without any."""
    total_N1 = gates_NE.sum(-1, keepdim=True)
    even_NE = torch.full_like(gates_NE, 1 / gates_NE.shape[1])
    return torch.where(total_N1 > 0, gates_NE / torch.where(total_N1 > 0, total_N1, 1.0), even_NE)
