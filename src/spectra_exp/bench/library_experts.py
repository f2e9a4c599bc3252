"""Experts of kernel libraries, with the weights of a case, so that their results can be compared with ours.

Shapes: N tokens, A = N K assignments, E experts, K experts per token, d hidden size, f expert width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from spectra_exp.bench.floor import Case


class LibraryExperts(nn.Module, ABC):
    """Gated experts whose gate and up projections are the rows of one matrix, [E, 2f, d]; down is [E, d, f]."""

    def __init__(self, case: Case):
        super().__init__()
        experts = case.experts
        assert experts.gate is not None
        self.inner = nn.Parameter(self.joined(experts.gate.detach(), experts.up.detach()))
        self.down = nn.Parameter(experts.down.detach().clone())
        self.index_NK = case.index_NK

    @staticmethod
    @abstractmethod
    def joined(gate_Efd: Tensor, up_Efd: Tensor) -> Tensor:
        """Gate and up projections, or their gradients, as the library wants them."""


class LigerExperts(LibraryExperts):
    """liger-kernel's (0.8 or later). Raises ImportError where it is not installed."""

    def __init__(self, case: Case):
        from liger_kernel.ops import LigerFusedMoEFunction

        super().__init__(case)
        self.function, self.index = LigerFusedMoEFunction, self.index_NK.int()

    @staticmethod
    def joined(gate_Efd: Tensor, up_Efd: Tensor) -> Tensor:
        """All rows of the gate, then those of up."""
        return torch.cat([gate_Efd, up_Efd], dim=1)

    def forward(self, tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
        """Weighted sum of the chosen experts' outputs [N, d]."""
        return self.function.apply(tokens_Nd, self.inner, self.down, self.index, weights_NE.gather(1, self.index_NK))


class SonicExperts(LibraryExperts):
    """SonicMoE's (package sonic-moe, 0.1). Raises ImportError where it is not installed."""

    def __init__(self, case: Case):
        from sonicmoe import moe_general_routing_inputs
        from sonicmoe.enums import ActivationType

        super().__init__(case)
        self.function, self.activation = moe_general_routing_inputs, ActivationType.SWIGLU
        tokens = torch.arange(case.shape.tokens, dtype=torch.int32, device=self.index_NK.device)
        self.token_A = tokens[:, None].expand_as(self.index_NK).flatten()
        self.expert_A = self.index_NK.int().flatten()

    @staticmethod
    def joined(gate_Efd: Tensor, up_Efd: Tensor) -> Tensor:
        """A row of the gate, the same of up, and so on."""
        return torch.stack([gate_Efd, up_Efd], dim=2).flatten(1, 2)

    def forward(self, tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
        """Weighted sum of the chosen experts' outputs [N, d]."""
        weights_A = weights_NE.gather(1, self.index_NK).flatten()
        lists = tokens_Nd, weights_A, self.token_A, self.expert_A
        # The libraries' order of dimensions: out, in, expert.
        matrices = self.inner.permute(1, 2, 0), None, self.down.permute(1, 2, 0), None
        return self.function(
            *lists,
            *matrices,
            E=len(self.inner),
            stream_id=None,
            activation_type=self.activation,
            is_inference_mode_enabled=not torch.is_grad_enabled(),
        )[0]


LIBRARIES: dict[str, type[LibraryExperts]] = {"liger": LigerExperts, "sonicmoe": SonicExperts}
