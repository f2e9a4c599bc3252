"""Selection rules: scores to executed assignments. Pure functions over the whole batch.

Shapes: N real tokens, E experts, K experts per token, C capacity of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from spectra_exp.foundations.options import option


@dataclass
class SelectionConfig:
    """Which rule turns scores into assignments."""

    rule: str = option(
        "topk",
        "topk: each token its best K; quota: the same under a capacity; expert_choice: each expert its best tokens",
        choices=["topk", "quota", "expert_choice"],
    )
    capacity_factor: float = option(1.25, "alpha: an expert's capacity is ceil(alpha N K / E) tokens", minimum=1)
    at_inference: bool = option(
        False, "use the rule in evaluation too (the model is then not causal); false: plain top-k there"
    )


def capacity(num_tokens: int, num_experts: int, top_k: int, capacity_factor: float) -> int:
    """Tokens that one expert may take: min(N, ceil(alpha N K / E))."""
    exact = Fraction(str(capacity_factor)) * num_tokens * top_k / num_experts  # 1.1 * 10 is not 11 in binary
    return min(num_tokens, math.ceil(exact))


def select_topk(scores_NE: Tensor, top_k: int, capacity_factor: float = 1.0) -> Tensor:
    """Assignments, bool [N, E]: each token's K best experts. The capacity plays no part."""
    chosen_NE = torch.zeros_like(scores_NE, dtype=torch.bool)
    return chosen_NE.scatter_(1, scores_NE.topk(top_k, dim=-1).indices, True)


def select_quota(scores_NE: Tensor, top_k: int, capacity_factor: float) -> Tensor:
    """Assignments, bool [N, E], of deferred acceptance under capacity C; all pairs ranked by one strict order.

    Each round every token proposes to its K best experts that have not turned it away, and each expert keeps its
    C best proposals. Rejections are final, so the rounds end; both sides rank by the same matrix, so the stable
    matching is unique and equals taking pairs greedily by score. For alpha >= 1 no token ends with no expert.
    *Source:* Gale and Shapley 1962; docs/method.md 1.10.
    """
    limit = capacity(*scores_NE.shape, top_k, capacity_factor)
    rank_NE = strict_ranks(scores_NE)
    refused_NE = torch.zeros_like(scores_NE, dtype=torch.bool)
    while True:
        open_NE = rank_NE.masked_fill(refused_NE, -1)
        best = open_NE.topk(top_k, dim=-1)
        proposed_NE = torch.zeros_like(refused_NE).scatter_(1, best.indices, best.values >= 0)
        if limit >= len(rank_NE):
            return proposed_NE
        # The (C+1)-th best proposal of each expert is the first that it must turn away.
        bids_NE = rank_NE.masked_fill(~proposed_NE, -1)
        cut_1E = bids_NE.topk(limit + 1, dim=0).values[-1:]
        turned_away_NE = proposed_NE & (rank_NE <= cut_1E)
        if not turned_away_NE.any():
            return proposed_NE
        refused_NE |= turned_away_NE


def select_expert_choice(scores_NE: Tensor, top_k: int, capacity_factor: float) -> Tensor:
    """Assignments, bool [N, E]: each expert takes its C best tokens. *Source:* Zhou et al. 2022, 3.2."""
    limit = capacity(*scores_NE.shape, top_k, capacity_factor)
    rank_NE = strict_ranks(scores_NE)
    chosen_NE = torch.zeros_like(scores_NE, dtype=torch.bool)
    return chosen_NE.scatter_(0, rank_NE.topk(limit, dim=0).indices, True)


SELECTIONS: dict[str, Callable[[Tensor, int, float], Tensor]] = {
    "topk": select_topk,
    "quota": select_quota,
    "expert_choice": select_expert_choice,
}

# Rules under which no token has more than K experts, and those that bound the assignments of a pass in another way: by
# N, E, K, alpha. Of a rule in neither the number is asked of the device in each pass. One that breaks its bound ends
# the run, since experts on a GPU have places for so many alone.
AT_MOST_K = ("topk", "quota")
OTHER_BOUNDS: dict[str, Callable[[int, int, int, float], int]] = {
    "expert_choice": lambda tokens, experts, top_k, alpha: experts * capacity(tokens, experts, top_k, alpha),
}


def assignment_weights(weights_NE: Tensor, chosen_NE: Tensor, normalize: bool) -> Tensor:
    """Combine weights [N, E], zero where not chosen; with `normalize` they sum to 1 over each token's experts."""
    kept_NE = weights_NE * chosen_NE
    if not normalize:
        return kept_NE
    total_N1 = kept_NE.sum(dim=-1, keepdim=True)
    # A token whose chosen values all underflowed to 0 shares equally among its experts.
    even_NE = chosen_NE / chosen_NE.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(total_N1 > 0, kept_NE / torch.where(total_N1 > 0, total_N1, 1.0), even_NE.to(kept_NE.dtype))


def strict_ranks(scores_NE: Tensor) -> Tensor:
    """Rank (int64, higher is better) of every pair in one strict order: by score, ties by a fixed hash of the pair."""
    n, e = scores_NE.shape
    tie_NE = position_hash(torch.arange(n, device=scores_NE.device), e)
    order = torch.argsort(tie_NE.flatten())
    order = order[torch.argsort(scores_NE.detach().flatten()[order], stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(n * e, device=order.device)
    return ranks.view(n, e)


def position_hash(values_N: Tensor, num_experts: int) -> Tensor:
    """Fixed pseudo-random numbers in [0, 2^53), float64 [N, E], of each (value, expert) pair.

    Integer mixing as in splitmix64 (Steele et al. 2014), on int64 with wrap-around.
    """
    experts_E = torch.arange(num_experts, device=values_N.device)
    z = values_N[:, None].long() * -7046029254386353131 + (experts_E + 1) * -4658895280553007687
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    z = z ^ ((z >> 31) & 0x1FFFFFFFF)
    return ((z >> 11) & ((1 << 53) - 1)).double()
