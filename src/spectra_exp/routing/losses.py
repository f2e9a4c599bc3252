"""Loss terms shared by routers, each before its coefficient. Shapes: N real tokens, E experts, D router dimension."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.collective import ALONE, Ranks
from spectra_exp.foundations.options import option


@dataclass
class LossesConfig:
    """Options of the router losses that belong to no router."""

    balance_scope: str = option(
        "micro_batch",
        "what the load-balance loss counts its loads over: each micro-batch of each rank; all ranks and what the step "
        "has counted so far (approximate under accumulation); or each sequence, by the scores without a bias",
        choices=["micro_batch", "global_batch", "sequence"],
    )


def load_balance_loss(probs_NE: Tensor, chosen_NE: Tensor) -> Tensor:
    """E * sum_i f_i P_i, where f_i is expert i's share of the executed assignments and P_i its mean probability.

    A uniform router scores 1 whatever k is. *Source:* Fedus et al. 2021, eq. 4-6. *Departs:* f is divided by
    N*k, not by N (transformers' version scores k), so that k does not change the loss's scale.
    """
    return load_balance_of_counts(probs_NE, chosen_NE.sum(dim=0))


def load_balance_of_counts(probs_NE: Tensor, counts_E: Tensor) -> Tensor:
    """The same with f from counts that may be of more tokens than `probs_NE` has: other ranks', other micro-batches'.

    P stays this batch's own: the mean of this loss's gradients over ranks of equal size is then the gradient of one
    process on all their tokens.
    """
    counts_E = counts_E.to(probs_NE.dtype)
    share_E = counts_E / counts_E.sum().clamp(min=1)
    return probs_NE.shape[1] * (share_E * probs_NE.mean(dim=0)).sum()


def load_balance_by_sequence(probs_NE: Tensor, chosen_NE: Tensor, sequence_N: Tensor, num_sequences: int) -> Tensor:
    """The same loss of each sequence over its own tokens, [Q]; 0 for one without tokens.

    *Source:* DeepSeek-V3, eq. 17-20, whose f counts the k best of the scores without a bias.
    """

    def sums(values_NE: Tensor) -> Tensor:
        sums_QE = values_NE.new_zeros(num_sequences, values_NE.shape[1])
        return sums_QE.index_add(0, sequence_N, values_NE)

    counts_QE, probs_QE = sums(chosen_NE.to(probs_NE.dtype)), sums(probs_NE)
    share_QE = counts_QE / counts_QE.sum(1, keepdim=True).clamp(min=1)
    # The rows of probabilities sum to 1, so that their sum counts the tokens.
    tokens_Q1 = probs_QE.detach().sum(1, keepdim=True).clamp(min=1)
    return probs_NE.shape[1] * (share_QE * probs_QE / tokens_Q1).sum(1)


def router_entropy(probs_NE: Tensor) -> Tensor:
    """Mean over tokens of -sum p log p, in nats; minimising it sharpens the routing."""
    # A probability may underflow to 0, where entr has an infinite slope: 0 times inf would be NaN in the gradient.
    log_probs_NE = probs_NE.clamp(min=torch.finfo(probs_NE.dtype).tiny).log()
    return -(probs_NE * log_probs_NE).sum(dim=-1).mean()


def router_z_loss(logits_NE: Tensor) -> Tensor:
    """Mean squared logsumexp of the logits. *Source:* Zoph et al. 2022 (ST-MoE), eq. 5."""
    return torch.logsumexp(logits_NE, dim=-1).square().mean()


def projector_orthogonality(weight_od: Tensor) -> Tensor:
    """Mean squared entry of W W^T - I or W^T W - I, whichever is smaller (tall: rows cannot be orthogonal)."""
    w = weight_od.float()
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return (product - torch.eye(product.shape[0], device=w.device)).square().mean()


def speciality_penalty(vectors_NED: Tensor) -> Tensor:
    """Mean squared off-diagonal entry of each token's Gram matrix of its E unit routing vectors.

    ||R R^T||_F = ||R^T R||_F, so the smaller of the two products is formed; the diagonal of R R^T is removed after.
    """
    n, e, d = vectors_NED.shape
    if e < 2:
        return vectors_NED.new_zeros(())
    product = vectors_NED @ vectors_NED.mT if e <= d else vectors_NED.mT @ vectors_NED
    diagonal_NE = vectors_NED.square().sum(-1)
    total = product.square().sum() - diagonal_NE.square().sum()
    return total / (n * e * (e - 1))


def mean_squared_cosine(vectors_NKd: Tensor) -> Tensor:
    """Mean over N sets of K vectors, and over pairs of different vectors of a set, of their squared cosine.

    0 for one vector; a vector of zeros counts as at right angles to all.
    """
    return speciality_penalty(torch.nn.functional.normalize(vectors_NKd.float(), dim=-1))


def distance_from_orthonormal(weight_Ed: Tensor) -> Tensor:
    """Sum of the absolute entries of W W^T - I. *Source:* Omi, Sen and Farhadi 2025 (SimBal), R^T R - I of R = W^T."""
    w = weight_Ed.float()
    return (w @ w.T - torch.eye(len(w), device=w.device)).abs().sum()


def score_variance_loss(probs_NE: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Minus the variance over tokens of each expert's probability, summed over experts; the mean is that of all ranks.

    *Source:* Guo et al. 2025 (arXiv 2505.22323), the variance loss.
    """
    # Deviations from a mean sum to zero, so that nothing is lost without the gradient through it.
    mean_E = ranks.mean(probs_NE.detach().mean(0))
    return -(probs_NE - mean_E).square().sum(1).mean()
