"""How like a routing and an expression vector are (docs/method.md 1.4): cosine, and what the paper argues against.

Shapes: B sequences, S tokens, E experts, D router dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Similarity(nn.Module):
    """Base class; `of_unit_vectors` says whether it compares directions, or vectors with their lengths."""

    of_unit_vectors = True

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, vectors_BSED: Tensor, expressions_BSED: Tensor) -> Tensor:
        """Similarities [B, S, E]; the expressions may broadcast. This one is the sum of products."""
        return (vectors_BSED * expressions_BSED).sum(dim=-1)

    def flops_per_token(self, num_experts: int) -> float:
        return 2.0 * num_experts * self.dim


class Cosine(Similarity):
    """The product of unit vectors; blind to length."""


class Dot(Similarity):
    """The product of the vectors as they are."""

    of_unit_vectors = False


class NegativeDistance(Similarity):
    """Minus the Euclidean distance of the vectors as they are (of unit vectors it would rank like the cosine)."""

    of_unit_vectors = False

    def forward(self, vectors_BSED, expressions_BSED):
        return -torch.linalg.vector_norm(vectors_BSED - expressions_BSED, dim=-1)


class Bilinear(Similarity):
    """r^T M e of unit vectors with one learned D x D form for all experts, the identity (so the cosine) at first."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.form = nn.Parameter(torch.empty(dim, dim))

    def reset_parameters(self) -> None:
        """Start from the identity."""
        nn.init.eye_(self.form)

    def forward(self, vectors_BSED, expressions_BSED):
        return super().forward(vectors_BSED @ self.form, expressions_BSED)

    def flops_per_token(self, num_experts: int) -> float:
        return super().flops_per_token(num_experts) * (1 + self.dim)


SIMILARITIES: dict[str, type[Similarity]] = {
    "cosine": Cosine,
    "dot": Dot,
    "l2": NegativeDistance,
    "bilinear": Bilinear,
}
