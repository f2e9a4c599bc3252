"""Selection rules: scores to executed assignments. Pure functions over the whole batch.

Shapes: N real tokens, E experts, K experts per token, C capacity of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from spectra_exp.foundations.bounds import MOST_EXPERTS
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.registry import check_free

Choose = Callable[[Tensor, int, float], Tensor]
AnyChoose = TypeVar("AnyChoose", bound=Choose)
Bound = Callable[[int, int, int, float], int]


@dataclass(frozen=True)
class SelectionRule:
    """A rule and what others must know about it.

    choose: scores [N, E], K and the capacity factor alpha -> assignments, bool [N, E]. sees_other_tokens: a token's
    experts depend on other tokens too, so that the rule is not causal. at_most_k: no token gets more than K experts.
    most: assignments of a pass at most, by N, E, K, alpha, of a rule that is not `at_most_k`; without either bound the
    number is asked of the device in each pass. A rule that breaks its bound ends the run, since experts on a GPU have
    places for so many alone. uses_capacity: it reads alpha. chooser: each token ranks the experts, each expert the
    tokens, or neither: every pair of both is decided alone, so that the number of experts varies by token.
    """

    name: str
    choose: Choose
    _: KW_ONLY
    sees_other_tokens: bool
    at_most_k: bool = False
    most: Bound | None = None
    uses_capacity: bool = False
    chooser: Literal["token", "expert", "pair"] = "token"

    def most_assignments(self, num_tokens: int, num_experts: int, top_k: int, capacity_factor: float) -> int | None:
        """At least as many assignments as it makes of `num_tokens`; None for a rule that declares no bound."""
        if self.at_most_k:
            return num_tokens * top_k
        return None if self.most is None else self.most(num_tokens, num_experts, top_k, capacity_factor)

    def experts_per_token(self, num_experts: int, top_k: int, capacity_factor: float) -> float:
        """Experts per token at most, on average over many tokens: E for a rule that declares no bound."""
        many = MANY_TOKENS * num_experts
        most = self.most_assignments(many, num_experts, top_k, capacity_factor)
        return float(num_experts) if most is None else most / many


# So many tokens per expert that rounding a capacity up does not show.
MANY_TOKENS = 10**9
# What each token gets where nothing else is in force.
PLAIN = "topk"
SELECTIONS: dict[str, SelectionRule] = {}


def selection_rule(name: str, **needs: Any) -> Callable[[AnyChoose], AnyChoose]:
    """A decorator that registers a function as the selection rule `name`; `needs`: the other fields of SelectionRule.

    Raises ValueError for a name already taken.
    """

    def register(choose: AnyChoose) -> AnyChoose:
        check_free("selection rule", name, getattr(SELECTIONS.get(name), "choose", None), choose)
        SELECTIONS[name] = SelectionRule(name, choose, **needs)
        return choose

    return register


def rule_in_force(config: SelectionConfig, training_rule: bool) -> SelectionRule:
    """The rule of training or of inference: one that sees other tokens gives way there to plain top-k, unless asked.

    Raises ConfigError, with the nearest name, for a rule that is not registered.
    """
    if config.rule not in SELECTIONS:
        raise ConfigError.unknown("selection.rule", config.rule, SELECTIONS)
    rule = SELECTIONS[config.rule]
    return rule if training_rule or config.at_inference or not rule.sees_other_tokens else SELECTIONS[PLAIN]


@dataclass
class SelectionConfig:
    """Which rule turns scores into assignments."""

    rule: str = option(
        PLAIN,
        "topk: each token its best K; quota: the same under a capacity; expert_choice: each expert its best tokens; "
        "threshold: every expert whose score is above 0",
        # By reference: rules that register later are among them.
        choices=SELECTIONS,
    )
    capacity_factor: float = option(
        1.25, "alpha: an expert's capacity is ceil(alpha N K / E) tokens", minimum=1, maximum=MOST_EXPERTS
    )
    at_inference: bool = option(
        False, "use the rule in evaluation too (the model is then not causal); false: plain top-k there"
    )


def capacity(num_tokens: int, num_experts: int, top_k: int, capacity_factor: float) -> int:
    """Tokens that one expert may take: min(N, ceil(alpha N K / E))."""
    exact = Fraction(str(capacity_factor)) * num_tokens * top_k / num_experts  # 1.1 * 10 is not 11 in binary
    return min(num_tokens, math.ceil(exact))


@selection_rule(PLAIN, at_most_k=True, sees_other_tokens=False)
def select_topk(scores_NE: Tensor, top_k: int, capacity_factor: float = 1.0) -> Tensor:
    """Assignments, bool [N, E]: each token's K best experts. The capacity plays no part."""
    chosen_NE = torch.zeros_like(scores_NE, dtype=torch.bool)
    return chosen_NE.scatter_(1, scores_NE.topk(top_k, dim=-1).indices, True)


@selection_rule("quota", at_most_k=True, sees_other_tokens=True, uses_capacity=True)
def select_quota(scores_NE: Tensor, top_k: int, capacity_factor: float) -> Tensor:
    """Assignments, bool [N, E], of deferred acceptance under capacity C; all pairs ranked by one strict order.

    Each round every token proposes to its K best experts that have not turned it away, and each expert keeps its
    C best proposals. Rejections are final, so the rounds end; both sides rank by the same matrix, so the stable
    matching is unique and equals taking pairs greedily by score. For alpha >= 1 no token ends with no expert.
    *Source:* Gale and Shapley 1962; docs/method.md 1.10.
    """
    num_tokens, num_experts = scores_NE.shape
    limit = capacity(num_tokens, num_experts, top_k, capacity_factor)
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


def all_places(num_tokens: int, num_experts: int, top_k: int, capacity_factor: float) -> int:
    """Assignments when every expert is full: E C."""
    return num_experts * capacity(num_tokens, num_experts, top_k, capacity_factor)


@selection_rule("expert_choice", chooser="expert", most=all_places, sees_other_tokens=True, uses_capacity=True)
def select_expert_choice(scores_NE: Tensor, top_k: int, capacity_factor: float) -> Tensor:
    """Assignments, bool [N, E]: each expert takes its C best tokens. *Source:* Zhou et al. 2022, 3.2."""
    num_tokens, num_experts = scores_NE.shape
    limit = capacity(num_tokens, num_experts, top_k, capacity_factor)
    rank_NE = strict_ranks(scores_NE)
    chosen_NE = torch.zeros_like(scores_NE, dtype=torch.bool)
    return chosen_NE.scatter_(0, rank_NE.topk(limit, dim=0).indices, True)


@selection_rule("threshold", chooser="pair", sees_other_tokens=False)
def select_threshold(scores_NE: Tensor, top_k: int, capacity_factor: float = 1.0) -> Tensor:
    """Assignments, bool [N, E]: every expert whose score is above 0; neither K nor the capacity plays a part."""
    return scores_NE > 0


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
