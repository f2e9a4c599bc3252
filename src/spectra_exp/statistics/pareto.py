"""The Pareto front: the points that no other point betters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pareto_front(points: Sequence[Sequence[float | None]], directions: Sequence[str]) -> list[bool]:
    """For each point, whether no other is as good in every objective and better in one.

    directions: which values are better, lower or higher, by objective. Equal points are on the front together. A point
    with a missing or non-finite objective is never on it and pushes no other off it. Raises ValueError for another
    direction, or a point with more or fewer objectives than there are directions.
    """
    if not directions or not set(directions) <= {"lower", "higher"}:
        raise ValueError(f"directions are {list(directions)}; each must be lower or higher")
    if any(len(point) != len(directions) for point in points):
        raise ValueError(f"every point needs {len(directions)} objectives")
    values = np.array(points, dtype=np.float64).reshape(-1, len(directions))
    known = np.all(np.isfinite(values), axis=1)
    costs = np.where(np.array(directions) == "lower", values, -values)
    candidates = costs[known]
    front = []
    for cost, is_known in zip(costs, known, strict=True):
        bettered = (candidates <= cost).all(axis=1) & (candidates < cost).any(axis=1)
        front.append(bool(is_known and not bettered.any()))
    return front
