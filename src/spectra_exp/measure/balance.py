"""How evenly the load falls on the experts.

Letters: E experts, T batches, Q sequences. The measures take counts over any leading axes and reduce the last one, so
that the chance floors put simulated counts through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spectra_exp.measure.base import metric
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.information import entropy

Measure = Callable[[np.ndarray], np.ndarray]


def coefficient_of_variation(counts: np.ndarray) -> np.ndarray:
    """Population standard deviation over mean; NaN without any load, which a rule may leave."""
    with np.errstate(invalid="ignore"):
        return counts.std(axis=-1) / counts.mean(axis=-1)


def max_violation(counts: np.ndarray) -> np.ndarray:
    """(max - mean) / mean, NaN without any load. *Source:* Wang et al. 2024, auxiliary-loss-free load balancing."""
    mean = counts.mean(axis=-1)
    with np.errstate(invalid="ignore"):
        return (counts.max(axis=-1) - mean) / mean


def gini(counts: np.ndarray) -> np.ndarray:
    """Gini coefficient: mean absolute difference of all pairs over twice the mean, in 0..1-1/E."""
    num_experts = counts.shape[-1]
    rank = np.arange(1, num_experts + 1)
    ordered = np.sort(counts, axis=-1)
    total = counts.sum(axis=-1)
    return 2 * (rank * ordered).sum(axis=-1) / (num_experts * total) - (num_experts + 1) / num_experts


def load_entropy(counts: np.ndarray) -> np.ndarray:
    """-sum f log f, nats."""
    return entropy(counts / counts.sum(axis=-1, keepdims=True))


def normalised_load_entropy(counts: np.ndarray) -> np.ndarray:
    """-sum f log f over log E; defined for two experts or more."""
    return load_entropy(counts) / np.log(counts.shape[-1])


def effective_number(counts: np.ndarray) -> np.ndarray:
    """exp of the entropy of the load: as many experts with equal loads would have that entropy."""
    return np.exp(load_entropy(counts))


def unused_share(counts: np.ndarray) -> np.ndarray:
    """Share of experts with no token."""
    return (counts == 0).mean(axis=-1)


def collapsed_share(counts: np.ndarray) -> np.ndarray:
    """Share of experts with less than a tenth of the mean load."""
    # In whole numbers, so that an expert at exactly 0.1/E does not depend on rounding.
    return (10 * counts.shape[-1] * counts < counts.sum(axis=-1, keepdims=True)).mean(axis=-1)


def load_cv_of_draw(counts_GE: np.ndarray) -> float:
    """The load CV, as a root mean square, that the draw of these G documents alone gives, were the loads even.

    The spread of each expert's share as a ratio estimate whose units are whole documents, since tokens of one route
    alike: `load_cv`'s own floor takes tokens as independent. counts_GE: assignments by document. NaN for fewer than two
    documents. *Source:* Cochran 1977, chapter 6 (ratio estimates).
    """
    total_E, size_G = counts_GE.sum(axis=0), counts_GE.sum(axis=1)
    documents = np.count_nonzero(size_G)
    if documents < 2:
        return math.nan
    residuals_GE = counts_GE - size_G[:, None] * (total_E / total_E.sum())
    variance_E = (residuals_GE**2).sum(axis=0) * documents / (documents - 1)
    return float(np.sqrt(variance_E.mean()) / total_E.mean())


# Metric name -> measure; with `_batch` or `_sequence` added, the same measure of each. Chance runs over these too.
MEASURES: dict[str, Measure] = {
    "load_cv": coefficient_of_variation,
    "max_vio": max_violation,
    "load_gini": gini,
    "expert_entropy": load_entropy,
    "expert_entropy_norm": normalised_load_entropy,
    "effective_experts": effective_number,
    "unused_rate": unused_share,
    "collapse_rate": collapsed_share,
}


def _over_evaluation(name: str, stats: LayerStatistics) -> float | None:
    return float(MEASURES[name](stats.counts_E)) if stats.counts_E.any() else None


def _over_batches(name: str, stats: LayerStatistics) -> float | None:
    used_TE = stats.counts_TE[stats.counts_TE.any(axis=1)]
    return float(MEASURES[name](used_TE).mean()) if len(used_TE) else None


def _over_sequences(name: str, stats: LayerStatistics) -> float | None:
    long_QE = stats.counts_QE[stats.long_Q]
    return float(MEASURES[name](long_QE).mean()) if len(long_QE) else None


@metric("load_cv", "lower", range=(0, "√(E − 1)"), floor="uniform", margin=0.02)
def load_cv(stats: LayerStatistics) -> float | None:
    """Population standard deviation of the experts' load over its mean."""
    return _over_evaluation("load_cv", stats)


@metric("load_cv_batch", "lower", range=(0, "√(E − 1)"), reduction="batch", floor="uniform", margin=0.02)
def load_cv_batch(stats: LayerStatistics) -> float | None:
    """load_cv of each batch, averaged."""
    return _over_batches("load_cv", stats)


@metric("max_vio", "lower", range=(0, "E − 1"), floor="uniform", margin=0.05)
def max_vio(stats: LayerStatistics) -> float | None:
    """How far the busiest expert's load lies above the mean, over the mean."""
    return _over_evaluation("max_vio", stats)


@metric("max_vio_batch", "lower", range=(0, "E − 1"), reduction="batch", floor="uniform", margin=0.05)
def max_vio_batch(stats: LayerStatistics) -> float | None:
    """max_vio of each batch, averaged."""
    return _over_batches("max_vio", stats)


@metric("load_cv_sequence", "lower", range=(0, "√(E − 1)"), reduction="sequence", floor="uniform", margin=0.02)
def load_cv_sequence(stats: LayerStatistics) -> float | None:
    """load_cv of each sequence with at least 8 E assignments, averaged."""
    return _over_sequences("load_cv", stats)


@metric("max_vio_sequence", "lower", range=(0, "E − 1"), reduction="sequence", floor="uniform", margin=0.05)
def max_vio_sequence(stats: LayerStatistics) -> float | None:
    """max_vio of each sequence with at least 8 E assignments, averaged."""
    return _over_sequences("max_vio", stats)


@metric("load_gini", "lower", range=(0, "1 − 1/E"), floor="uniform")
def load_gini(stats: LayerStatistics) -> float | None:
    """Gini coefficient of the experts' load."""
    return _over_evaluation("load_gini", stats)


@metric("expert_entropy", "higher", "nats", range=(0, "log E"), floor="uniform")
def expert_entropy(stats: LayerStatistics) -> float | None:
    """Entropy of the experts' shares of the load."""
    return _over_evaluation("expert_entropy", stats)


@metric("expert_entropy_norm", "higher", range=(0, 1), floor="uniform")
def expert_entropy_norm(stats: LayerStatistics) -> float | None:
    """Entropy of the experts' shares of the load over log E."""
    return _over_evaluation("expert_entropy_norm", stats) if stats.num_experts > 1 else None


@metric("effective_experts", "higher", range=(1, "E"), floor="uniform")
def effective_experts(stats: LayerStatistics) -> float | None:
    """exp of expert_entropy: as many experts with equal loads would have that entropy."""
    return _over_evaluation("effective_experts", stats)


@metric("unused_rate", "lower", "share", range=(0, 1), floor="uniform")
def unused_rate(stats: LayerStatistics) -> float | None:
    """Share of experts that no token used."""
    return _over_evaluation("unused_rate", stats)


@metric("collapse_rate", "lower", "share", range=(0, 1), floor="uniform")
def collapse_rate(stats: LayerStatistics) -> float | None:
    """Share of experts with less than a tenth of an even share of the load."""
    return _over_evaluation("collapse_rate", stats)


@metric("quota_short_rate", "lower", "share", range=(0, 1))
def quota_short_rate(stats: LayerStatistics) -> float | None:
    """Share of tokens with fewer than k experts, those with none included."""
    return float(stats.sizes[: stats.top_k].sum()) / stats.num_tokens if stats.num_tokens else None


# Two names of one figure: of rules that turn tokens away, and of rules by which a token may ask for none.
@metric("no_expert_rate", "lower", "share", range=(0, 1))
@metric("dropped_rate", "lower", "share", range=(0, 1))
def dropped_rate(stats: LayerStatistics) -> float | None:
    """Share of tokens with no expert, which pass the layer by."""
    return float(stats.sizes[0]) / stats.num_tokens if stats.num_tokens else None


@metric("executed_k", "none", "experts", range=(0, "E"))
def executed_k(stats: LayerStatistics) -> float | None:
    """Mean number of routed experts that a token executed; shared experts are not counted."""
    return float(stats.counts_E.sum()) / stats.num_tokens if stats.num_tokens else None


@metric("null_rate", "none", "share", range=(0, 1))
def null_rate(stats: LayerStatistics) -> float | None:
    """Share of assignments to empty experts, which no other figure counts."""
    made = int(stats.counts_E.sum()) + (stats.null_assignments or 0)
    return stats.null_assignments / made if stats.null_assignments is not None and made else None


def executed_k_by_domain(stats: LayerStatistics) -> np.ndarray:
    """executed_k of each domain's tokens [M]; NaN for a domain without any."""
    tokens_M = np.bincount(
        stats.domains_G[stats.domains_G >= 0], stats.tokens_G[stats.domains_G >= 0], stats.num_domains
    )
    with np.errstate(invalid="ignore"):
        return stats.counts_ME.sum(axis=1) / tokens_M
