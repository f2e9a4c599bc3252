"""What sets the experts apart: the words, partners, representations and domains that are theirs.

Letters: E experts, V vocabulary, M domains, D width of a vector.
"""

from __future__ import annotations

import math

import numpy as np

from spectra_exp.measure.base import metric
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.information import entropy, mutual_information


@metric("expert_overlap", "lower", range=(0, 1), floor="marginals", margin=0.02)
def expert_overlap(stats: LayerStatistics) -> float | None:
    """Mean over pairs of experts of the weighted Jaccard of the vocabulary that they serve.

    Pairs with an unused expert have no distribution and are left out.
    """
    counts_EV = stats.counts_EV[np.ix_(stats.counts_EV.any(axis=1), stats.tokens_V > 0)]
    if len(counts_EV) < 2:
        return None
    shares_EV = counts_EV / counts_EV.sum(axis=1, keepdims=True)
    total = 0.0
    for i in range(len(shares_EV) - 1):
        common = np.minimum(shares_EV[i], shares_EV[i + 1 :]).sum(axis=1)
        # Both distributions sum to one, so the maxima sum to 2 - common.
        total += float((common / (2 - common)).sum())
    return total / math.comb(len(shares_EV), 2)


def coactivation_matrix(stats: LayerStatistics) -> np.ndarray:
    """[E, E], row i: P(j | i), the share of expert i's tokens that use j too; the diagonal and unused rows are 0."""
    shares_EE = stats.pairs_EE / np.maximum(stats.counts_E, 1)[:, None]
    np.fill_diagonal(shares_EE, 0.0)
    return shares_EE


@metric("coactivation", "none", "share", range=(0, 1), floor="marginals")
def coactivation(stats: LayerStatistics) -> float | None:
    """Mean over experts of the share of their tokens that also use their most frequent partner."""
    used = stats.counts_E > 0
    if not stats.sizes[2:].any():
        return None
    return float(coactivation_matrix(stats)[used].max(axis=1).mean())


@metric("expert_diversity", "higher", range=(0, 1), floor="marginals")
def expert_diversity(stats: LayerStatistics) -> float | None:
    """One minus the mean over pairs of experts of the normalised mutual information of who uses them.

    Pairs of which neither varies (each used by all tokens or by none) are left out.
    """
    if not stats.num_tokens:
        return None
    first, second = np.triu_indices(stats.num_experts, k=1)
    both, a, b = stats.pairs_EE[first, second], stats.counts_E[first], stats.counts_E[second]
    cells = np.stack([both, a - both, b - both, stats.num_tokens - a - b + both], axis=-1) / stats.num_tokens
    side = np.stack([a, stats.num_tokens - a, b, stats.num_tokens - b], axis=-1) / stats.num_tokens
    entropies = entropy(side[:, :2]) + entropy(side[:, 2:])
    varies = entropies > 0
    if not varies.any():
        return None
    information = entropies[varies] - entropy(cells[varies])
    return 1.0 - float((2 * information / entropies[varies]).clip(0.0, 1.0).mean())


def off_diagonal_cosines(vectors_ED: np.ndarray | None) -> np.ndarray | None:
    """The cosines of all ordered pairs i != j of the non-zero rows, flat; None with fewer than two such rows.

    A row of zeros (an unused expert's mean output) has no direction and is left out. None too for vectors that
    are not finite, as a diverged run leaves them.
    """
    if vectors_ED is None or not np.isfinite(vectors_ED).all():
        return None
    length_E = np.linalg.norm(vectors_ED, axis=1)
    unit_ED = vectors_ED[length_E > 0] / length_E[length_E > 0, None]
    if len(unit_ED) < 2:
        return None
    return (unit_ED @ unit_ED.T)[~np.eye(len(unit_ED), dtype=bool)]


def expert_similarity(vectors_ED: np.ndarray | None) -> dict[str, float] | None:
    """Mean, max and std of the off-diagonal cosines of any vectors, one per expert (flattened weights, outputs)."""
    cosines = off_diagonal_cosines(vectors_ED)
    if cosines is None:
        return None
    return {"mean": float(cosines.mean()), "max": float(cosines.max()), "std": float(cosines.std())}


def _orthogonality(vectors_ED: np.ndarray | None) -> float | None:
    cosines = off_diagonal_cosines(vectors_ED)
    return None if cosines is None else 1.0 - float(np.abs(cosines).mean())


def _output_similarity(stats: LayerStatistics, key: str) -> float | None:
    summary = expert_similarity(stats.output_mean_ED)
    return None if summary is None else summary[key]


@metric("gram_orthogonality", "higher", range=(0, 1))
def gram_orthogonality(stats: LayerStatistics) -> float | None:
    """One minus the mean absolute cosine of different experts' representations."""
    return _orthogonality(stats.representation_ED)


@metric("gram_rms", "lower", range=(0, 1), floor="gram_welch_floor")
def gram_rms(stats: LayerStatistics) -> float | None:
    """Root mean square cosine of different experts' representations."""
    cosines = off_diagonal_cosines(stats.representation_ED)
    return None if cosines is None else float(np.sqrt((cosines**2).mean()))


@metric("gram_welch_floor", "none", range=(0, 1))
def gram_welch_floor(stats: LayerStatistics) -> float | None:
    """The least gram_rms that E vectors in D dimensions can have (0 for E <= D).

    *Source:* Welch 1974: sqrt((E - D) / (D (E - 1))).
    """
    if stats.representation_ED is None or stats.num_experts < 2:
        return None
    num_experts, width = stats.representation_ED.shape
    return math.sqrt(max(num_experts - width, 0) / (width * (num_experts - 1)))


@metric("output_gram_orthogonality", "higher", range=(0, 1))
def output_gram_orthogonality(stats: LayerStatistics) -> float | None:
    """One minus the mean absolute cosine of different experts' mean outputs."""
    return _orthogonality(stats.output_mean_ED)


@metric("expert_similarity_output_mean", "lower", range=(-1, 1))
def expert_similarity_output_mean(stats: LayerStatistics) -> float | None:
    """Mean cosine of different experts' mean outputs."""
    return _output_similarity(stats, "mean")


@metric("expert_similarity_output_max", "lower", range=(-1, 1))
def expert_similarity_output_max(stats: LayerStatistics) -> float | None:
    """Largest cosine of two experts' mean outputs."""
    return _output_similarity(stats, "max")


@metric("expert_similarity_output_std", "lower", range=(0, 1))
def expert_similarity_output_std(stats: LayerStatistics) -> float | None:
    """Standard deviation of the cosines of different experts' mean outputs."""
    return _output_similarity(stats, "std")


def _weight_similarity(stats: LayerStatistics, key: str) -> float | None:
    cosines_EE = stats.weight_cosines_EE
    if cosines_EE is None or len(cosines_EE) < 2 or not np.isfinite(cosines_EE).all():
        return None
    apart = cosines_EE[~np.eye(len(cosines_EE), dtype=bool)]
    return {"mean": float(apart.mean()), "max": float(apart.max()), "std": float(apart.std())}[key]


@metric("expert_similarity_weight_mean", "lower", range=("−1/(E − 1)", 1))
def expert_similarity_weight_mean(stats: LayerStatistics) -> float | None:
    """Mean cosine of different experts' flattened down-projections."""
    return _weight_similarity(stats, "mean")


@metric("expert_similarity_weight_max", "lower", range=(-1, 1))
def expert_similarity_weight_max(stats: LayerStatistics) -> float | None:
    """Largest cosine of two experts' flattened down-projections."""
    return _weight_similarity(stats, "max")


@metric("expert_similarity_weight_std", "lower", range=(0, 1))
def expert_similarity_weight_std(stats: LayerStatistics) -> float | None:
    """Standard deviation of the cosines of different experts' flattened down-projections."""
    return _weight_similarity(stats, "std")


def domain_affinity(stats: LayerStatistics) -> np.ndarray:
    """[M, E] P(expert | domain) / P(expert), NaN where the domain or the expert had no token."""
    with np.errstate(invalid="ignore", divide="ignore"):
        given_ME = stats.counts_ME / stats.counts_ME.sum(axis=1, keepdims=True)
        return given_ME / (stats.counts_ME.sum(axis=0) / stats.counts_ME.sum())


def _served_domains(stats: LayerStatistics) -> np.ndarray | None:
    """Counts of the domains that have tokens, None with fewer than two."""
    counts_ME = stats.counts_ME
    served_ME = counts_ME[counts_ME.any(axis=1)]
    return served_ME if len(served_ME) > 1 else None


@metric("domain_purity", "higher", "share", range=("1/M", 1), floor="documents")
def domain_purity(stats: LayerStatistics) -> float | None:
    """Mean over used experts of the largest share that one domain has in them, domains weighted equally."""
    served_ME = _served_domains(stats)
    return None if served_ME is None else _purity(served_ME)


@metric("order_purity", "higher", "share", range=("1/2", 1), floor="orders")
def order_purity(stats: LayerStatistics) -> float | None:
    """Mean over used experts of the larger share of rounds_forward or rounds_backward in them, weighted equally."""
    if stats.reversed_domains is None:
        return None
    served_ME = stats.counts_ME[list(stats.reversed_domains)]
    return _purity(served_ME) if served_ME.any(axis=1).all() else None


def _purity(counts_ME: np.ndarray) -> float:
    """Mean over experts of the largest share of a domain; every domain has tokens and counts alike."""
    given_ME = counts_ME / counts_ME.sum(axis=1, keepdims=True)
    used_ME = given_ME[:, counts_ME.any(axis=0)]
    return float((used_ME / used_ME.sum(axis=0)).max(axis=0).mean())


@metric("domain_mutual_information", "higher", "nats", range=(0, "log M"), floor="documents", margin=0.01)
def domain_mutual_information(stats: LayerStatistics) -> float | None:
    """Mutual information of expert and domain over the assignments."""
    served_ME = _served_domains(stats)
    return None if served_ME is None else mutual_information(served_ME)
