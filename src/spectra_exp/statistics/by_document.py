"""Differences per token from sums by document: for two models, and over seeds with seeds and text as two samples.

Letters: G documents, S seeds. A document's tokens are not independent of each other, so documents are the units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectra_exp.statistics.comparison import NO_SPREAD, NOISE
from spectra_exp.statistics.intervals import LEVEL

ONE_DOCUMENT = "one document"
ONE_SEED = "one seed"
# Text adds little where it adds this share to the variance that seeds give.
LITTLE = 0.1


@dataclass(frozen=True)
class Estimate:
    """A difference with its standard error on `df` degrees of freedom; `note` says why there is no error.

    error, df and the test are None without one; units of the difference are those of the sums per token.
    """

    difference: float
    error: float | None
    df: float | None
    note: str = ""

    @property
    def t(self) -> float | None:
        """The difference in standard errors."""
        return None if self.error is None else self.difference / self.error

    @property
    def p(self) -> float | None:
        """Two-sided p of no difference."""
        from scipy.special import stdtr

        return (
            None
            if self.error is None or self.df is None
            else 2 * float(stdtr(self.df, -abs(self.difference / self.error)))
        )

    def interval(self, level: float = LEVEL) -> tuple[float | None, float | None]:
        """Bounds of the true difference, two-sided at `level`; None without an error."""
        from scipy.special import stdtrit

        if self.error is None or self.df is None:
            return None, None
        half = float(stdtrit(self.df, (1 + level) / 2)) * self.error
        return self.difference - half, self.difference + half


@dataclass(frozen=True)
class Components:
    """What a mean difference over S seeds and G documents varies by, each as a variance of that mean.

    seed: of other seeds on these documents; document: of other documents with these seeds; cell: what both of them
    hold, which is neither's own. `seeds` is the estimate for these documents, `both` for other seeds and other text.
    """

    seed: float
    document: float
    cell: float
    tokens: int
    seeds: Estimate
    both: Estimate

    @property
    def text_share(self) -> float | None:
        """Share of the variance that more text would take away, 0 to 1; None without any variance."""
        total = self.seed + self._text
        return self._text / total if total > 0 else None

    @property
    def enough_tokens(self) -> float | None:
        """Evaluation tokens from which text adds less than `LITTLE` to the variance of the seeds that there are.

        More text than that is wasted; None where the seeds show no variance to compare with.
        """
        own = self.seed - self.cell
        return None if own <= 0 else self.tokens * (self._text + self.cell) / (LITTLE * own)

    @property
    def _text(self) -> float:
        return max(0.0, self.document - self.cell)


def per_token(difference_G: np.ndarray, tokens_G: np.ndarray) -> Estimate:
    """Σ difference / Σ tokens, of two models' sums by document, and its error over documents.

    difference_G: sum over a document's tokens of one model's loss less the other's; tokens_G: how many. Valid for these
    two models on text like this. *Source:* the ratio estimator (Cochran 1977, 6.4), its error from the residuals
    d − θ·tokens.
    """
    difference_G, tokens_G = np.asarray(difference_G, dtype=np.float64), np.asarray(tokens_G, dtype=np.float64)
    theta = float(difference_G.sum() / tokens_G.sum())
    if len(difference_G) < 2:
        return Estimate(theta, None, None, ONE_DOCUMENT)
    variance = _over_documents(difference_G - theta * tokens_G, tokens_G)
    return _estimate(theta, variance, len(difference_G) - 1, float(np.abs(difference_G / tokens_G).max()))


def over_seeds(difference_SG: np.ndarray, tokens_G: np.ndarray) -> Components:
    """The mean difference per token over seeds, for other seeds and other text, with what it varies by.

    difference_SG: sums by seed and document of one method's loss less the other's. The variance for both is
    seed + document − cell, never below that of seeds alone, with Satterthwaite's degrees of freedom.
    *Source:* two crossed random factors (Cameron, Gelbach and Miller 2011; Satterthwaite 1946). Raises ValueError for
    one seed or one document.
    """
    difference_SG, tokens_G = np.asarray(difference_SG, dtype=np.float64), np.asarray(tokens_G, dtype=np.float64)
    seeds, documents = difference_SG.shape
    if seeds < 2 or documents < 2:
        raise ValueError(f"{ONE_SEED if seeds < 2 else ONE_DOCUMENT}: there is nothing to compare its spread with")
    theta_S = difference_SG.sum(axis=1) / tokens_G.sum()
    mean = float(theta_S.mean())
    residual_SG = difference_SG - theta_S[:, None] * tokens_G
    common_G = residual_SG.mean(axis=0)
    seed = float(theta_S.var(ddof=1)) / seeds
    document = _over_documents(common_G, tokens_G)
    cell = sum(_over_documents(row_G, tokens_G) for row_G in residual_SG - common_G) / (seeds * (seeds - 1))
    largest = float(np.abs(difference_SG / tokens_G).max())
    both, df = seed + document - cell, float(seeds - 1)
    if both > seed:
        parts = ((seed, seeds - 1), (document, documents - 1), (cell, (seeds - 1) * (documents - 1)))
        df = both**2 / sum(variance**2 / own for variance, own in parts)
    return Components(
        seed,
        document,
        cell,
        int(tokens_G.sum()),
        _estimate(mean, seed, seeds - 1, largest),
        _estimate(mean, max(both, seed), df, largest),
    )


def _over_documents(residual_G: np.ndarray, tokens_G: np.ndarray) -> float:
    """The variance of Σ residual / Σ tokens, of residuals that sum to zero."""
    count = len(residual_G)
    return float((residual_G**2).sum()) * count / (count - 1) / float(tokens_G.sum()) ** 2


def _estimate(difference: float, variance: float, df: float, scale: float) -> Estimate:
    error = math.sqrt(variance)
    return Estimate(difference, error, df) if error > NOISE * scale else Estimate(difference, None, None, NO_SPREAD)
