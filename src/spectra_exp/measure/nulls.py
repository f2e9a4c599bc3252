"""Random routing to hold a router against: uniform, or with the router's own marginal loads.

Letters: N tokens, E experts, R draws. The size of a token is the number of experts that it uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIT_STEPS = 500
FIT_TOLERANCE = 1e-6
TOKENS_AT_ONCE = 32_768  # a table of all tokens in float64 would take a gigabyte at 256 experts


def uniform_counts(num_experts: int, tokens_by_size: Sequence[int], draws: int, seed: int) -> np.ndarray:
    """[R, E] loads when `tokens_by_size[s]` tokens take s distinct experts each at random, all alike.

    Exact without drawing token by token: going through the experts, tokens are only told apart by how many picks
    they have left, and one with r left of n experts takes the next with probability r/n. *Source:* ours.
    """
    sizes = np.flatnonzero(tokens_by_size)
    own = sizes if len(sizes) == 1 else tokens_by_size
    rng = np.random.default_rng([seed, sum(tokens_by_size), num_experts, *own])
    most = int(sizes.max(initial=0))
    left = np.tile(np.array(tokens_by_size[: most + 1], dtype=np.int64), (draws, 1))  # by the picks that they have left
    counts_RE = np.empty((draws, num_experts), dtype=np.int64)
    for i in range(num_experts):
        taken = rng.binomial(left, np.minimum(np.arange(most + 1) / (num_experts - i), 1.0))
        counts_RE[:, i] = taken.sum(axis=1)
        left -= taken
        left[:, :-1] += taken[:, 1:]
    return counts_RE


class MarginalRouting:
    """Random expert sets with given loads and sizes, otherwise without structure.

    Each token takes independent coins with chances q, given that as many fall heads as its size: the routing of
    largest entropy among those with these loads. q is fitted so that expert i is used by a share `inclusion_E[i]`
    of tokens, of which a share `size_share[s]` has s experts. *Source:* conditional Poisson sampling (Chen,
    Dempster and Liu 1994); the fixed-point fit is ours.
    """

    def __init__(self, inclusion_E: np.ndarray, size_share: np.ndarray):
        self.size_share = np.asarray(size_share, dtype=np.float64)
        target_E = np.clip(inclusion_E, 0.0, 1.0)
        self.chance_E = target_E.astype(np.float64)
        free_E = (target_E > 0) & (target_E < 1)  # the others are never, or always, used
        if free_E.any():
            self._fit(target_E, free_E)

    def sample(self, sizes_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[N, E] bool, one random set for each token, of `sizes_N[n]` experts."""
        num_experts, left_N = len(self.chance_E), sizes_N.copy()
        tails = self._tails(int(sizes_N.max(initial=0)))
        used_EN = np.empty((num_experts, len(sizes_N)), dtype=bool)
        for i, chance in enumerate(self.chance_E):
            take = _ratio(chance * _shift(tails[i + 1]), tails[i])
            used_EN[i] = rng.random(len(sizes_N)) < take[left_N]
            left_N -= used_EN[i]
        return used_EN.T

    def inclusion(self) -> np.ndarray:
        """[E] the share of tokens that use each expert under the present chances."""
        top = int(np.flatnonzero(self.size_share).max(initial=0))
        heads, tails = self._heads(top), self._tails(top)
        share = self.size_share[: top + 1]
        inclusion_E = np.empty(len(self.chance_E))
        for i, chance in enumerate(self.chance_E):
            others = np.convolve(heads[i], tails[i + 1])[: top + 1]
            inclusion_E[i] = chance * (share * _ratio(_shift(others), tails[0])).sum()
        return inclusion_E

    def _fit(self, target_E: np.ndarray, free_E: np.ndarray) -> None:
        goal = _odds(target_E[free_E])
        for _ in range(FIT_STEPS):
            reached_E = self.inclusion()
            if np.abs(reached_E - target_E).max() < FIT_TOLERANCE:
                return
            reached = _odds(np.clip(reached_E[free_E], 1e-12, 1 - 1e-12))
            # Half a step in log odds: a whole one swings for ever between two experts of which each token takes one.
            odds = _odds(self.chance_E[free_E]) * np.sqrt(goal / reached)
            self.chance_E[free_E] = np.clip(odds / (1 + odds), 1e-12, 1 - 1e-12)

    def _tails(self, top: int) -> np.ndarray:
        """[E+1, top+1] row i: the chance of each number of heads among experts i and later."""
        table = np.zeros((len(self.chance_E) + 1, top + 1))
        table[-1, 0] = 1.0
        for i in range(len(self.chance_E) - 1, -1, -1):
            table[i] = (1 - self.chance_E[i]) * table[i + 1] + self.chance_E[i] * _shift(table[i + 1])
        return table

    def _heads(self, top: int) -> np.ndarray:
        """[E+1, top+1] row i: the chance of each number of heads among the experts before i."""
        table = np.zeros((len(self.chance_E) + 1, top + 1))
        table[0, 0] = 1.0
        for i, chance in enumerate(self.chance_E):
            table[i + 1] = (1 - chance) * table[i] + chance * _shift(table[i])
        return table


def _shift(row: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], row[:-1]])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _odds(p: np.ndarray) -> np.ndarray:
    return p / (1 - p)


def pair_counts(used_NE: np.ndarray) -> np.ndarray:
    """[E, E] int64: the number of tokens that use both experts; the diagonal is the experts' loads."""
    pairs_EE = np.zeros((used_NE.shape[1],) * 2, dtype=np.int64)
    for start in range(0, len(used_NE), TOKENS_AT_ONCE):
        # In floating point the product is a fast one, and exact.
        part_NE = used_NE[start : start + TOKENS_AT_ONCE].astype(np.float64)
        pairs_EE += np.rint(part_NE.T @ part_NE).astype(np.int64)
    return pairs_EE


def served_vocabulary(used_NE: np.ndarray, tokens_V: np.ndarray) -> np.ndarray:
    """[E, V] int64: the vocabulary that each expert serves when the sets `used_NE` fall on the text's tokens."""
    seen = np.flatnonzero(tokens_V)
    starts = np.cumsum(tokens_V[seen]) - tokens_V[seen]  # the text's tokens, sorted by vocabulary id
    counts_EV = np.zeros((used_NE.shape[1], len(tokens_V)), dtype=np.int64)
    # One expert at a time: reduceat copies all that it is given as int64.
    for expert, used_N in enumerate(used_NE.T):
        counts_EV[expert, seen] = np.add.reduceat(used_N, starts, dtype=np.int64)
    return counts_EV


def random_joint(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random table of counts with the row and column sums of `table`, rows and columns independent."""
    rows = np.repeat(np.arange(len(table)), table.sum(axis=1))
    columns = rng.permutation(np.repeat(np.arange(table.shape[1]), table.sum(axis=0)))
    return np.bincount(rows * table.shape[1] + columns, minlength=table.size).reshape(table.shape)
