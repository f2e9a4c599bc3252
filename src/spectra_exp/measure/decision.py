"""How the router decides: how sharply, and how much neighbouring tokens and layers agree."""

from __future__ import annotations

import math

from spectra_exp.measure.base import metric
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.information import normalised_mutual_information


@metric("routing_entropy", "none", "nats", range=(0, "log E"))
def routing_entropy(stats: LayerStatistics) -> float | None:
    """Mean entropy of the router's distribution over experts, before selection."""
    if stats.entropy_sum is None or not stats.num_tokens:
        return None
    return stats.entropy_sum / stats.num_tokens


@metric("routing_entropy_norm", "none", range=(0, 1))
def routing_entropy_norm(stats: LayerStatistics) -> float | None:
    """Mean entropy of the router's distribution over log E."""
    value = routing_entropy(stats)
    return None if value is None or stats.num_experts < 2 else value / math.log(stats.num_experts)


@metric("routing_confidence", "none", "share", range=("1/E", 1))
def routing_confidence(stats: LayerStatistics) -> float | None:
    """Mean weight of the token's first expert, its weights renormalised to sum to one."""
    routed = int(stats.sizes[1:].sum())
    return stats.confidence_sum / routed if routed else None


@metric("score_gap", "none", "probability", range=(0, 1))
def score_gap(stats: LayerStatistics) -> float | None:
    """Mean difference of the two largest probabilities."""
    if stats.gap_sum is None or not stats.num_tokens:
        return None
    return stats.gap_sum / stats.num_tokens


# Under rules by which a token may have more than k experts the share can be above one.
@metric("sequential_overlap", "none", "share", range=(0, "E/k"), floor="marginals", margin=0.02)
def sequential_overlap(stats: LayerStatistics) -> float | None:
    """Share of k experts that a token has in common with the next token of its document."""
    if not stats.num_adjacent:
        return None
    # More than k where tokens differ in how many experts they have.
    per_token = max(stats.top_k, stats.counts_E.sum() / stats.num_tokens)
    return float(stats.overlap_sum / (per_token * stats.num_adjacent))


@metric("layer_mutual_information", "none", range=(0, 1), floor="marginals", margin=0.01)
def layer_mutual_information(stats: LayerStatistics) -> float | None:
    """Normalised mutual information of the tokens' first experts in the routed layer before and in this one."""
    return None if stats.first_EE is None else normalised_mutual_information(stats.first_EE)
