"""Nearest orthogonal matrices, and measures of how far experts are from orthogonal.

Shapes: E experts, o rows and i columns of a matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectra_exp.routing.osr import representation_orthogonality

# 1.875^10 is about 500: a singular value that far below the matrix's Frobenius norm still ends near 1.
NEWTON_SCHULZ_ITERATIONS = 10
# Added to the diagonal of a Gram matrix, which is singular when E > D, before its determinant is taken.
RIDGE = 1e-3
MEASURES = ("gram", "mean_cosine", "logdet")


def polar_factor(weight_oi: Tensor) -> Tensor:
    """The matrix with orthonormal rows or columns that is nearest to `weight_oi`, times its mean scale.

    The scale keeps the Frobenius norm. *Source:* Higham 1986 (Computing the polar decomposition).
    """
    w = weight_oi.float()
    left, _, right = torch.linalg.svd(w, full_matrices=False)
    return (left @ right * (w.norm() / min(w.shape) ** 0.5)).to(weight_oi.dtype)


def newton_schulz(weight_oi: Tensor) -> Tensor:
    """The polar factor of `weight_oi` by products alone, differentiable: X <- X (15 I - 10 X^T X + 3 (X^T X)^2) / 8.

    Singular values in (0, 1] go to 1, cubically near it; the start is the matrix over its Frobenius norm.
    *Source:* Bjoerck and Bowie 1971 (order 3).
    """
    x = weight_oi.float()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp(min=1e-12)
    for _ in range(NEWTON_SCHULZ_ITERATIONS):
        square = x @ x.mT
        x = 1.875 * x - 1.25 * (square @ x) + 0.375 * (square @ (square @ x))
    return x.mT if tall else x


def mean_cosine(gram_EE: Tensor) -> Tensor:
    """Mean cosine of two different experts, in [-1/(E-1), 1]; correlations of opposite sign cancel."""
    e = gram_EE.shape[0]
    return (gram_EE.sum() - torch.diagonal(gram_EE).sum()) / max(1, e * (e - 1))


def negative_log_determinant(gram_EE: Tensor) -> Tensor:
    """-log det(G + 0.001 I): least, about 0, for orthogonal experts; at most E log 1000 when all are alike."""
    ridge = RIDGE * torch.eye(gram_EE.shape[0], dtype=gram_EE.dtype, device=gram_EE.device)
    return -torch.linalg.slogdet(gram_EE + ridge).logabsdet


def representation_loss(gram_EE: Tensor, measure: str, spectral: bool) -> Tensor:
    """How far the experts' representations are from orthogonal, by one of MEASURES (paper 7.5).

    `spectral` belongs to `gram` alone.
    """
    match measure:
        case "gram":
            return representation_orthogonality(gram_EE, spectral)
        case "mean_cosine":
            return mean_cosine(gram_EE)
        case "logdet":
            return negative_log_determinant(gram_EE)
    raise AssertionError(measure)
