"""How well the hidden states that a router sees fall apart by the expert that it sends them to.

Letters: P probe tokens, E experts, D width of a hidden state.
"""

from __future__ import annotations

import numpy as np

from spectra_exp.measure.base import metric
from spectra_exp.measure.counts import LayerStatistics

# Fewer tokens give a figure that says little.
LEAST_TOKENS = 2000


@metric("silhouette", "none", range=(-1, 1))
def silhouette(stats: LayerStatistics) -> float | None:
    """Mean silhouette of the probe tokens' hidden states by first expert, cosine distance.

    Not defined with fewer than 2,000 probe tokens that have an expert, or fewer than two experts among them.
    """
    if stats.probe_hidden_PD is None or not len(stats.probe_experts_PK):
        return None
    first_P = stats.probe_experts_PK[:, 0]
    has_expert = first_P >= 0
    if has_expert.sum() < LEAST_TOKENS or not np.isfinite(stats.probe_hidden_PD).all():
        return None
    return cosine_silhouette(stats.probe_hidden_PD[has_expert], first_P[has_expert])


def cosine_silhouette(hidden_PD: np.ndarray, label_P: np.ndarray) -> float | None:
    """Mean silhouette (Rousseeuw 1987) under 1 − cosine; None with fewer than two labels.

    A mean of cosine distances to a cluster is one less the product with the sum of its unit vectors, so that this is
    linear in the tokens. A token alone in its cluster counts 0. *Source:* scikit-learn's definition.
    """
    labels, cluster_P = np.unique(label_P, return_inverse=True)
    if len(labels) < 2:
        return None
    hidden_PD = hidden_PD.astype(np.float64)
    length_P1 = np.linalg.norm(hidden_PD, axis=1, keepdims=True)
    unit_PD = np.divide(hidden_PD, length_P1, out=np.zeros_like(hidden_PD), where=length_P1 > 0)
    member_PC = np.eye(len(labels))[cluster_P]
    size_C = member_PC.sum(axis=0)
    distance_PC = size_C - unit_PD @ (unit_PD.T @ member_PC)
    rows = np.arange(len(cluster_P))
    own_size_P = size_C[cluster_P]
    # The token's distance to itself: zero, or one for a vector without direction.
    itself_P = 1.0 - (unit_PD**2).sum(axis=1)
    within_P = (distance_PC[rows, cluster_P] - itself_P) / np.maximum(own_size_P - 1, 1)
    other_PC = distance_PC / size_C
    other_PC[rows, cluster_P] = np.inf
    nearest_P = other_PC.min(axis=1)
    largest_P = np.maximum(np.maximum(within_P, nearest_P), np.finfo(float).tiny)
    return float(np.where(own_size_P > 1, (nearest_P - within_P) / largest_P, 0.0).mean())
