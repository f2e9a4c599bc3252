"""Entropy and mutual information of counts, in nats."""

from __future__ import annotations

import numpy as np


def entropy(shares: np.ndarray) -> np.ndarray:
    """-sum p log p over the last axis, with 0 log 0 = 0."""
    return -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0).sum(axis=-1)


def mutual_information(joint: np.ndarray) -> float | None:
    """I(row; column) of a table of counts, in nats; None for an empty table."""
    total = joint.sum()
    if total <= 0:
        return None
    p = joint / total
    information = entropy(p.sum(axis=1)) + entropy(p.sum(axis=0)) - entropy(p.ravel())
    return max(float(information), 0.0)


def normalised_mutual_information(joint: np.ndarray) -> float | None:
    """I(row; column) over the mean of the two entropies, in 0..1; None when neither side varies.

    *Source:* the arithmetic normalisation, scikit-learn's default (which gives 1 when neither side varies).
    """
    information = mutual_information(joint)
    if information is None:
        return None
    p = joint / joint.sum()
    mean = (entropy(p.sum(axis=1)) + entropy(p.sum(axis=0))) / 2
    return min(information / float(mean), 1.0) if mean > 0 else None
