"""Seeded choices that come out the same on every machine, in every process and Python version."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from spectra_exp.data.documents import digest

Item = TypeVar("Item")


class Dice:
    """A stream of choices, given by the parts of its key.

    Everything is drawn through `random.Random.random`, the one method whose sequence Python promises to keep.
    """

    def __init__(self, *key: object):
        self._next = random.Random(int(digest(*key), 16)).random

    def unit(self) -> float:
        """A number in [0, 1)."""
        return self._next()

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return int(self._next() * bound)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + int(self._next() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, all equally likely."""
        return items[int(self._next() * len(items))]

    def skewed(self, items: Sequence[Item]) -> Item:
        """One of the items, the nth with weight 1/n (Zipf): words of a text are used this unevenly."""
        cumulative = _zipf_cumulative(len(items))
        return items[bisect_right(cumulative, self._next() * cumulative[-1])]

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items in random order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]


@cache
def _zipf_cumulative(length: int) -> tuple[float, ...]:
    total, sums = 0.0, []
    for rank in range(length):
        total += 1.0 / (rank + 1)
        sums.append(total)
    return tuple(sums)
