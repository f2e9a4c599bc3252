"""Random routing: K distinct experts drawn uniformly for each token; what a learned router must beat.

Shapes: B sequences, S tokens each, N real tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.options import option
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.selection import position_hash

# Odd factors that keep positions and ids apart before the hash mixes them.
POSITION_FACTOR, ID_FACTOR = 1_000_003, 998_244_353
LARGEST_SALT = 2**62


@dataclass
class RandomConfig(RouterConfig):
    """Random routing has no options of its own."""

    name: str = option("random", "which router this is")


@register_router
class RandomRouter(Router):
    """Draws that follow from position, token id and a salt per layer and seed, so that a token decoded alone is
    routed as in a full pass. Weights are 1/K each; there is no distribution. *Source:* docs/method.md 2.

    The position counts a sequence's real tokens; the state, [1, B], is how many came before.
    """

    Config = RandomConfig
    salt: Tensor
    learned = False
    decides = True
    label = "Random"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: RandomConfig):
        super().__init__(hidden_size, num_experts, top_k, config)
        self.register_buffer("salt", torch.zeros((), dtype=torch.long))

    def reset_parameters(self) -> None:
        self.salt.random_(LARGEST_SALT)

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        ids_BS = inputs.token_ids_BS
        assert ids_BS is not None
        real_BS = torch.ones_like(ids_BS) if inputs.mask_BS is None else inputs.mask_BS.long()
        before_B = inputs.state[0] if isinstance(inputs.state, Tensor) else torch.zeros_like(ids_BS[:, 0])
        seen_BS = before_B[:, None] + real_BS.cumsum(dim=1)
        draws_BS = self.salt + seen_BS * POSITION_FACTOR + ids_BS * ID_FACTOR
        scores_NE = position_hash(inputs.real(draws_BS), self.num_experts)
        ones_NE = torch.ones(scores_NE.shape, device=scores_NE.device)
        return RouterOutput(scores_NE, ones_NE, state=seen_BS[:, -1][None])
