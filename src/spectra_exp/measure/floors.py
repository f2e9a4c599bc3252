"""Chance floors: what each metric would read under random routing, by the metric's own function.

`uniform`: as many tokens, k distinct experts each, all alike. `marginals`: random routing with the router's own
loads, or a collapsed router would score as stable. `documents`: whole documents change domains. `orders`: those of two
domains of the same words in opposite orders change between the two. A figure near its floor says nothing about the
router.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np

from spectra_exp.measure.balance import MEASURES
from spectra_exp.measure.base import METRICS, OF_EVALUATION
from spectra_exp.measure.boundaries import random_boundaries
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.nulls import MarginalRouting, pair_counts, random_joint, served_vocabulary, uniform_counts
from spectra_exp.measure.stability import LayerTrajectory, experts_per_token, routing_consistency, usage_variance

UNIFORM_DRAWS = 400
MARGINAL_DRAWS = 4  # each draw averages over all tokens or all pairs of experts
DOCUMENT_DRAWS = 20
TRAJECTORY_DRAWS = 100
# Metrics of loads alone: chance is drawn for the measure, of each part's own size.
_OF_LOADS = {f"{name}{part}" for name in MEASURES for part in ("", "_batch", "_sequence")}

Floors = dict[str, float]


def uniform_balance(num_tokens: int, num_experts: int, top_k: int, seed: int = 0) -> Floors:
    """Balance metric -> its mean under uniform random routing of `num_tokens` tokens, k distinct experts each."""
    return _balance_by_size(num_experts, (*[0] * top_k, num_tokens), seed)


@cache
def _balance_by_size(num_experts: int, tokens_by_size: tuple[int, ...], seed: int) -> Floors:
    """The same of tokens that take unequal numbers of experts: `tokens_by_size[s]` of them s each; empty where all take
    none."""
    if not any(tokens_by_size[1:]):
        return {}
    counts_RE = uniform_counts(num_experts, tokens_by_size, UNIFORM_DRAWS, seed)
    # log E is 0 for a single expert, whose normalised entropy is not defined.
    measures = {n: m for n, m in MEASURES.items() if num_experts > 1 or n != "expert_entropy_norm"}
    return {name: float(measure(counts_RE).mean()) for name, measure in measures.items()}


def uniform_floors(stats: LayerStatistics, seed: int) -> Floors:
    """Floors of the balance metrics, of tokens that take as many experts each as they did.

    Those by batch or sequence average over the parts' own numbers of tokens, of all sizes in proportion.
    """

    def floors(num_tokens: int) -> Floors:
        # Rounded such that the sizes add up to the tokens.
        up_to = np.rint(stats.sizes.cumsum() * (num_tokens / stats.num_tokens)).astype(np.int64)
        return _balance_by_size(stats.num_experts, tuple(np.diff(up_to, prepend=0).tolist()), seed)

    values = dict(floors(stats.num_tokens))
    for part, tokens in (("batch", stats.tokens_T), ("sequence", stats.tokens_Q[stats.long_Q])):
        values |= {f"{name}_{part}": value for name, value in _mean_floors(tokens, floors).items()}
    others = [name for name in _names("uniform") if name not in _OF_LOADS]
    return {name: values[name] for name in _names("uniform") if name in values} | mean_over_draws(
        others, uniform_draws(stats, seed)
    )


def _mean_floors(tokens: np.ndarray, floors_of: Callable[[int], Floors]) -> Floors:
    """The mean of `floors_of` over parts of so many tokens each that have any; empty without such a part."""
    sizes = Counter(tokens.tolist())
    floors = {size: found for size in sizes if (found := floors_of(size))}
    names, parts = next(iter(floors.values()), {}), sum(sizes[size] for size in floors)
    return {name: sum(sizes[size] * found[name] for size, found in floors.items()) / parts for name in names}


def uniform_draws(stats: LayerStatistics, seed: int) -> Iterator[LayerStatistics]:
    """The layer's statistics as random routing with even loads and its own set sizes would have left them."""
    return marginal_draws(replace(stats, counts_E=np.full(stats.num_experts, stats.counts_E.mean())), seed)


def marginal_draws(stats: LayerStatistics, seed: int) -> Iterator[LayerStatistics]:
    """The layer's statistics as random routing with its own loads and set sizes would have left them."""
    rng = np.random.default_rng([seed, stats.layer])
    routing = MarginalRouting(stats.inclusion_E, stats.sizes / stats.num_tokens)
    sizes_N = np.repeat(np.arange(len(stats.sizes)), stats.sizes)
    # Two independent tokens share expert i with chance (c_i/N)^2: k sum f f' of k when every token uses k.
    overlap_sum = stats.num_adjacent * float((stats.inclusion_E**2).sum())
    # Draws of their own: those of the other metrics stay what they were.
    of_boundaries = np.random.default_rng([seed, stats.layer, 1])
    for _ in range(MARGINAL_DRAWS):
        used_NE = routing.sample(rng.permutation(sizes_N), rng)
        pairs_EE = pair_counts(used_NE)
        yield replace(
            random_boundaries(stats, of_boundaries),
            counts_E=pairs_EE.diagonal().copy(),
            pairs_EE=pairs_EE,
            counts_EV=served_vocabulary(used_NE, stats.tokens_V),
            first_EE=None if stats.first_EE is None else random_joint(stats.first_EE, rng),
            overlap_sum=overlap_sum,
        )


def document_draws(stats: LayerStatistics, seed: int, draws: int = DOCUMENT_DRAWS) -> Iterator[LayerStatistics]:
    """The layer's statistics with the domains of its documents permuted, each document kept whole."""
    return _permuted(stats, stats.domains_G >= 0, seed, draws)


def order_draws(stats: LayerStatistics, seed: int, draws: int = DOCUMENT_DRAWS) -> Iterator[LayerStatistics]:
    """The same of the documents of `reversed_domains` alone."""
    return _permuted(stats, np.isin(stats.domains_G, stats.reversed_domains or ()), seed, draws)


def _permuted(stats: LayerStatistics, chosen_G: np.ndarray, seed: int, draws: int) -> Iterator[LayerStatistics]:
    rng = np.random.default_rng([seed, stats.layer])
    present = np.flatnonzero(chosen_G & stats.counts_GE.any(axis=1))
    for _ in range(draws):
        domains_G = stats.domains_G.copy()
        domains_G[present] = rng.permutation(domains_G[present])
        yield replace(stats, domains_G=domains_G)


def mean_over_draws(names: Sequence[str], draws: Iterator[LayerStatistics]) -> Floors:
    """Metric -> its mean over the draws, which are made where a metric asks for them."""
    values: dict[str, list[float]] = {}
    for drawn in draws if names else ():
        for name in names:
            value = METRICS[name].function(drawn)
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: float(np.mean(v)) for name, v in values.items()}


def _names(null: str) -> list[str]:
    return [m.name for m in METRICS.values() if m.floor == null and m.reduction in OF_EVALUATION]


def evaluation_floors(stats: LayerStatistics, seed: int = 0) -> Floors:
    """Metric -> chance floor of one layer of one evaluation; metrics without a value have no floor."""
    if not stats.counts_E.any():
        return {}
    return (
        uniform_floors(stats, seed)
        | mean_over_draws(_names("marginals"), marginal_draws(stats, seed))
        | mean_over_draws(_names("documents"), document_draws(stats, seed))
        | mean_over_draws(_names("orders"), order_draws(stats, seed))
    )


def consistency_floor(pairs: Iterable[tuple[np.ndarray, np.ndarray]], top_k: int) -> float:
    """Agreement of random sets with the loads of each pair of [P, E] sets: k sum f f' when every token uses k."""
    pairs = list(pairs)
    common = [(a_PE.mean(axis=0) * b_PE.mean(axis=0)).sum() for a_PE, b_PE in pairs]
    return float(np.mean(common)) / experts_per_token(top_k, *(used_PE for pair in pairs for used_PE in pair))


def usage_variance_floor(trajectory: LayerTrajectory, seed: int) -> float:
    """usage_variance of a router whose chances never change, from the finite number of tokens alone."""
    rng = np.random.default_rng([seed, trajectory.layer])
    counts_TE = trajectory.counts_TE
    chance_E = np.clip(counts_TE.mean(axis=0) / trajectory.num_tokens, 0.0, 1.0)
    drawn_RTE = rng.binomial(trajectory.num_tokens, chance_E, size=(TRAJECTORY_DRAWS, *counts_TE.shape))
    values = [usage_variance(replace(trajectory, counts_TGE=counts_TE[:, None])) for counts_TE in drawn_RTE]
    return float(np.mean([v for v in values if v is not None]))


def trajectory_floors(trajectory: LayerTrajectory, seed: int = 0) -> Floors:
    """Metric -> chance floor of one layer over the fractions of training."""
    floors: Floors = {}
    if routing_consistency(trajectory) is not None:
        used_TPE, top_k = trajectory.used_TPE, trajectory.top_k
        floors["routing_consistency"] = consistency_floor(pairwise(used_TPE), top_k)
        floors["router_saturation"] = consistency_floor(((a, used_TPE[-1]) for a in used_TPE[:-1]), top_k)
    if usage_variance(trajectory) is not None:
        floors["usage_variance"] = usage_variance_floor(trajectory, seed)
    return floors
