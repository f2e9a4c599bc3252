"""p-values corrected for the number of tests made together, and their stars.

A test without a p-value (None, or NaN as a table holds it) keeps none and does not count in the family's size: it
cannot give a false star. So a family grows, and its corrected values with it, as missing runs come in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Test → p-value corrected by Holm's method: the chance of any false finding in the family stays below alpha.

    Holds however the tests depend on each other. Raises ValueError outside 0..1. *Source:* Holm 1979.
    """
    return _corrected(p_values, _step_down)


def holm_by_family(p_values: Sequence[float | None], families: Sequence[Hashable]) -> list[float | None]:
    """The p-values of tests, each corrected by `holm` over those of its family."""
    corrected: dict[int, float | None] = {}
    for family in dict.fromkeys(families):
        corrected |= holm({i: p for i, p in enumerate(p_values) if families[i] == family})
    return [corrected[i] for i in range(len(p_values))]


def benjamini_hochberg(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Test → p-value corrected so that the expected share of false ones among the findings stays below alpha.

    For independent or positively dependent tests. Raises ValueError outside 0..1.
    *Source:* Benjamini and Hochberg 1995.
    """
    from scipy.stats import false_discovery_control

    return _corrected(p_values, false_discovery_control)


def stars(p: float | None) -> str:
    """*** below 0.001, ** below 0.01, * below 0.05, else nothing, as for no p-value; give it the corrected one."""
    if p is None:
        return ""
    return next((mark for limit, mark in STARS if p < limit), "")


def _step_down(p_values: np.ndarray) -> np.ndarray:
    # Not statsmodels: for this method alone it collects all garbage of the process, 0.03 to 0.1 s a family.
    order = np.argsort(p_values, kind="stable")
    remaining = np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * remaining))
    return corrected


def _corrected(
    p_values: Mapping[Key, float | None], method: Callable[[np.ndarray], np.ndarray]
) -> dict[Key, float | None]:
    tested = {key: float(p) for key, p in p_values.items() if p is not None and not math.isnan(p)}
    if bad := [p for p in tested.values() if not 0 <= p <= 1]:
        raise ValueError(f"a p-value is {bad[0]}; it must lie in 0..1")
    values = method(np.array(list(tested.values()))) if tested else np.array([])
    corrected = dict(zip(tested, values.tolist(), strict=True))
    return {key: corrected.get(key) for key in p_values}
