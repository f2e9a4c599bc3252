"""Paired differences by seed and document: how much of the variance is seeds, how much is text, and what follows.

The claim is about two methods: other seeds and other texts are both allowed for. Letters: S seeds, G documents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectra_exp.statistics.comparison import NO_SPREAD, NOISE, largest
from spectra_exp.statistics.intervals import LEVEL

CLAIM = "these methods"
# More text narrows the interval by no more than this share: it is wasted.
WASTED = 0.05


@dataclass(frozen=True)
class CrossedDifference:
    """The difference a − b per token over S seeds and G documents, its variance in parts, and its interval.

    v_seed: variance of `difference` over other seeds, on the same documents; v_document: over other documents, with the
    same seeds; v_cell: the part by seed and document together, which both hold. variance: v_seed + v_document − v_cell,
    never below v_seed; df: Satterthwaite's. Where their interval would be narrower than that over seeds alone
    (seed_low, seed_high: about this text), both are those of seeds alone. share_text: what of the sum is not in the
    v_seed of an endless text, 0..1. enough_tokens: size of the evaluation after which more text narrows the interval
    by less than 5 %; None where seeds show no variance of their own, so that text is never wasted. Bounds and p are
    None where nothing varies, and `note` says so.
    """

    seeds: int
    documents: int
    tokens: float
    difference: float
    v_seed: float
    v_document: float
    v_cell: float
    variance: float
    df: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    seed_low: float | None
    seed_high: float | None
    share_text: float | None
    enough_tokens: float | None
    note: str = ""
    claim: str = CLAIM

    @property
    def se(self) -> float | None:
        """The standard error of `difference`; None where nothing varies."""
        return None if self.df is None else math.sqrt(self.variance)


def crossed_difference(d_SG: np.ndarray, size_G: np.ndarray) -> CrossedDifference:
    """The two-way interval of Σd / (S Σ size) from the paired differences of each seed and document.

    d_SG: difference of two models' summed loss on a document, trained on the same seed; size_G: scored tokens. The
    parts are those of crossed random effects on the difference per token, by documents of unequal size. Raises
    ValueError for other shapes, fewer than two seeds or documents, sizes not above zero and values not finite.
    *Source:* crossed random effects by moments (Searle, Casella and McCulloch 1992, chapter 4), the sum of the parts
    as Cameron, Gelbach and Miller 2011; degrees of freedom by Satterthwaite 1946.
    """
    from scipy.special import stdtr, stdtrit

    d_SG, size_G = np.asarray(d_SG, dtype=np.float64), np.asarray(size_G, dtype=np.float64)
    if d_SG.ndim != 2 or size_G.shape != d_SG.shape[1:] or min(d_SG.shape) < 2:
        raise ValueError(f"{d_SG.shape} differences of {size_G.shape} documents: two seeds and two documents at least")
    if not (size_G > 0).all() or not np.isfinite(d_SG).all() or not np.isfinite(size_G).all():
        raise ValueError("documents need a size above zero and finite differences")
    (seeds, documents), total = d_SG.shape, float(size_G.sum())
    theta = float(d_SG.sum() / (seeds * total))
    by_seed_S = d_SG.sum(axis=1) / total
    v_seed = float(by_seed_S.var(ddof=1)) / seeds
    # In the unit of the result: a document's residual, and a cell's, are already weighted with its tokens.
    correction = documents / (documents - 1)
    mean_G = d_SG.mean(axis=0)
    v_document = correction * float(((mean_G - theta * size_G) ** 2).sum()) / total**2
    cell_SG = (d_SG - mean_G - np.outer(by_seed_S - theta, size_G)) / total
    v_cell = correction * float((cell_SG**2).sum()) / (seeds * (seeds - 1))
    found = seeds, documents, total, theta, v_seed, v_document, v_cell
    whole = v_seed + max(0.0, v_document - v_cell)
    # Also where seeds agree in sum and differ by document: counts of hits may.
    if np.sqrt(whole) <= NOISE * largest(d_SG / size_G):
        return CrossedDifference(*found, 0.0, *(None,) * 8, NO_SPREAD)
    parts = v_seed**2 / (seeds - 1) + v_document**2 / (documents - 1) + v_cell**2 / ((seeds - 1) * (documents - 1))
    candidates = [(v_seed, seeds - 1.0), *([(whole, whole**2 / parts)] if whole > v_seed else [])]
    # Few seeds have few degrees of freedom: other text as well must not be known better than this text alone.
    half, variance, df = max((float(stdtrit(df, (1 + LEVEL) / 2) * np.sqrt(v)), v, df) for v, df in candidates)
    se = np.sqrt(variance)
    seed_half = float(stdtrit(seeds - 1, (1 + LEVEL) / 2) * np.sqrt(v_seed))
    endless = max(0.0, v_seed - v_cell)  # what seeds leave on an endless text
    wasted = (1 + WASTED) ** 2 - 1
    return CrossedDifference(
        *found,
        variance,
        float(df),
        theta - half,
        theta + half,
        2 * float(stdtr(df, -abs(theta) / se)),
        theta - seed_half,
        theta + seed_half,
        share_text=1 - endless / whole,
        enough_tokens=total * (whole - endless) / (wasted * endless) if endless else None,
    )
