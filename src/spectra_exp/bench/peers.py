"""Other ways to run the same experts: a masked loop, and transformers' own implementations.

Shapes: N tokens, E experts, K experts per token, d hidden size, f expert width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from spectra_exp.bench.floor import Case, Shape


def masked_loop(case: Case, tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
    """Each expert picks its tokens by a mask and indexes its weights, as first implementations do; [N, d]."""
    output_Nd = torch.zeros_like(tokens_Nd)
    experts, linear = case.experts, nn.functional.linear
    for expert in range(case.shape.num_experts):
        at_A = case.chosen_NE[:, expert].nonzero()[:, 0]
        rows = tokens_Nd[at_A]
        inner = linear(rows, experts.up[expert])
        if experts.gate is not None:
            inner = experts.activation(linear(rows, experts.gate[expert])) * inner
        else:
            inner = experts.activation(inner)
        rows = linear(inner, experts.down[expert]) * weights_NE[at_A, expert, None]
        output_Nd = output_Nd.index_add(0, at_A, rows)
    return output_Nd


def gated_width(shape: Shape) -> int:
    """Width of a gated expert with the parameters and products of this shape's: transformers' experts have a gate."""
    return shape.expert_size if shape.gated else shape.expert_size * 2 // 3


class TransformersExperts(nn.Module):
    """transformers' Mixtral experts under one of its implementations, with the parameters of the shape."""

    def __init__(self, case: Case, implementation: str):
        super().__init__()
        shape = case.shape
        config = MixtralConfig(
            hidden_size=shape.hidden_size,
            intermediate_size=gated_width(shape),
            num_local_experts=shape.num_experts,
            num_experts_per_tok=shape.top_k,
        )
        config._experts_implementation = implementation
        self.experts = MixtralExperts(config)
        for parameter in self.experts.parameters():
            nn.init.normal_(parameter, std=0.02)
        self.index_NK = case.index_NK

    def forward(self, tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
        """Weighted sum of the chosen experts' outputs [N, d]."""
        return self.experts(tokens_Nd, self.index_NK, weights_NE.gather(1, self.index_NK))
