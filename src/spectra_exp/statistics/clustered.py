"""Two models on the same documents or items: the difference of their means, with whole clusters as the units.

The claim is about these two models: other texts or items are allowed for, other seeds are not. A document is a cluster
of its tokens, a passage one of its questions. Letters: G clusters, N items.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spectra_exp.statistics.comparison import NO_SPREAD, NOISE, largest
from spectra_exp.statistics.corrections import holm
from spectra_exp.statistics.intervals import LEVEL

CLAIM = "these runs"
ONE_CLUSTER = "one document only"
FEW_CLUSTERS = 10  # fewer give an interval that is a guess, and says so


@dataclass(frozen=True)
class ClusteredDifference:
    """The difference a − b of two means per unit (token or item); what cannot be said is None, and `note` says why.

    clusters: G; size: units in all. se: standard error of `difference`, with df = G − 1. ci_low, ci_high: at 95 %.
    p: two-sided. p_corrected: by Holm over the groups that were tested together (None for one test alone).
    """

    clusters: int
    size: float
    mean_a: float
    mean_b: float
    difference: float
    se: float | None = None
    df: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    note: str = ""
    p_corrected: float | None = None
    claim: str = CLAIM


def clustered_difference(a_G: np.ndarray, b_G: np.ndarray, size_G: np.ndarray) -> ClusteredDifference:
    """The difference Σ(a − b) / Σ size of two models, from sums over the same clusters.

    a_G, b_G: sums of the score of each model over a cluster (losses of a document's tokens, nats); size_G: units of the
    cluster (scored tokens). The standard error is that of a ratio estimator: from the residuals (a − b) − θ · size of
    the clusters, because the tokens of a document differ together; one cluster has none, and no spread has none
    either. Raises ValueError for other lengths, no cluster, sizes that are not above zero or sums that are not finite.
    *Source:* Cochran 1977, chapter 6 (ratio estimates) and 9A (unequal clusters).
    """
    from scipy.special import stdtr, stdtrit

    a_G, b_G, size_G = (np.asarray(values, dtype=np.float64) for values in (a_G, b_G, size_G))
    if not len(a_G) == len(b_G) == len(size_G) or a_G.ndim != 1:
        raise ValueError(f"{a_G.shape}, {b_G.shape} and {size_G.shape}: each cluster needs two sums and a size")
    if not len(size_G) or not (size_G > 0).all() or not np.isfinite([a_G, b_G, size_G]).all():
        raise ValueError("clusters need a size above zero and finite sums, and there must be one")
    clusters, total = len(size_G), float(size_G.sum())
    means = float(a_G.sum() / total), float(b_G.sum() / total)
    theta = float((a_G - b_G).sum() / total)
    residual_G = (a_G - b_G) - theta * size_G
    noise = NOISE * max(largest(a_G), largest(b_G))
    if clusters == 1 or largest(residual_G) <= noise:
        note = ONE_CLUSTER if clusters == 1 else NO_SPREAD
        return ClusteredDifference(clusters, total, *means, theta, note=note)
    se, df = math.sqrt(clusters / (clusters - 1) * float((residual_G**2).sum())) / total, clusters - 1
    half, p = float(stdtrit(df, (1 + LEVEL) / 2)) * se, 2 * float(stdtr(df, -abs(theta) / se))
    note = f"n<{FEW_CLUSTERS} clusters" if clusters < FEW_CLUSTERS else ""
    return ClusteredDifference(clusters, total, *means, theta, se, df, theta - half, theta + half, p, note)


def items_difference(a_N: Sequence[float], b_N: Sequence[float], groups_N: Sequence[Hashable]) -> ClusteredDifference:
    """The difference of two models' mean score over the same N items; items of one group share a passage.

    With a group of its own for each item it is the paired t test; with shared ones the groups are the
    units. Raises ValueError as `clustered_difference`.
    """
    if not len(a_N) == len(b_N) == len(groups_N):
        raise ValueError(f"{len(a_N)}, {len(b_N)} and {len(groups_N)}: each item needs two scores and a group")
    number: dict[Hashable, int] = {}
    place_N = np.array([number.setdefault(group, len(number)) for group in groups_N], dtype=np.int64)
    a_G, b_G = (np.bincount(place_N, weights=np.asarray(scores, dtype=np.float64)) for scores in (a_N, b_N))
    return clustered_difference(a_G, b_G, np.bincount(place_N))


def difference_by_domain(
    a_G: np.ndarray, b_G: np.ndarray, size_G: np.ndarray, domains_G: Sequence[str]
) -> Mapping[str, ClusteredDifference]:
    """`clustered_difference` of each domain's documents, in the order of names, corrected over domains by Holm."""
    names_G = np.asarray(domains_G, dtype=object)
    if len(names_G) != len(size_G):
        raise ValueError(f"{len(names_G)} domains of {len(size_G)} documents")
    a_G, b_G, size_G = np.asarray(a_G), np.asarray(b_G), np.asarray(size_G)
    found = {
        name: clustered_difference(a_G[names_G == name], b_G[names_G == name], size_G[names_G == name])
        for name in sorted(set(names_G))
    }
    corrected = holm({name: difference.p for name, difference in found.items()})
    return {name: replace(difference, p_corrected=corrected[name]) for name, difference in found.items()}
