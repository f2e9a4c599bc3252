"""Hash routing: a token's experts follow from its id alone; nothing is learned.

Shapes: N real tokens, E experts, K experts per token, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectra_exp.foundations.options import option
from spectra_exp.routing.base import Router, RouterConfig, RouterOutput, RoutingInput, register_router
from spectra_exp.routing.selection import position_hash


@dataclass
class HashConfig(RouterConfig):
    """Options of the hash router."""

    name: str = option("hash", "which router this is")
    kind: str = option(
        "balanced",
        "what is hashed: the id (random), the id with ids dealt out by training frequency (balanced), "
        "or the id and the one before it (bigram)",
        choices=["balanced", "random", "bigram"],
    )


@register_router
class HashRouter(Router):
    """*Source:* Roller et al. 2021 (Hash Layers), 3.1-3.2. Weights are 1/K each; there is no distribution."""

    Config = HashConfig
    config: HashConfig
    experts_VK: Tensor
    learned = False
    decides = True
    uses_vocabulary = True
    label = "Hash"

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, config: HashConfig, vocabulary_size: int):
        super().__init__(hidden_size, num_experts, top_k, config)
        if config.kind == "balanced":
            self.register_buffer("experts_VK", torch.zeros(vocabulary_size, top_k, dtype=torch.long))

    def set_token_counts(self, counts_V: np.ndarray) -> None:
        """Deal the ids out by their training frequency; `balanced` needs this once, before training."""
        if self.config.kind == "balanced":
            self.experts_VK.copy_(torch.from_numpy(balanced_assignment(counts_V, self.num_experts, self.top_k)))

    def forward(self, inputs: RoutingInput) -> RouterOutput:
        assert inputs.token_ids_BS is not None
        ids_N = inputs.real(inputs.token_ids_BS)
        ones_NE = torch.ones(len(ids_N), self.num_experts, device=ids_N.device)
        match self.config.kind:
            case "balanced":
                scores_NE = torch.zeros_like(ones_NE).scatter_(1, self.experts_VK[ids_N], 1.0)
            case "random":
                scores_NE = position_hash(ids_N, self.num_experts)
            case _:
                # Python integers wrap in the hash anyway; a large odd factor keeps pairs apart.
                assert inputs.previous_ids_BS is not None
                pair_N = inputs.real(inputs.previous_ids_BS) * 1_000_003 + ids_N
                scores_NE = position_hash(pair_N, self.num_experts)
        return RouterOutput(scores_NE, ones_NE)

    def flops_per_token(self) -> float:
        return 0.0


def balanced_assignment(counts_V: np.ndarray, num_experts: int, top_k: int) -> np.ndarray:
    """Experts [V, K] of each id: in falling order of frequency, each id goes to the K experts with the least load."""
    load_E = np.zeros(num_experts)
    experts_VK = np.zeros((len(counts_V), top_k), dtype=np.int64)
    for token in np.argsort(-np.asarray(counts_V), kind="stable"):
        least = np.argsort(load_E, kind="stable")[:top_k]
        experts_VK[token] = least
        # Ids that training never showed still count a little, so that they spread over the experts.
        load_E[least] += counts_V[token] + 1e-3
    return experts_VK
