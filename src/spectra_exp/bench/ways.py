"""Ways to do one piece of work: what is wrong with those that fail or disagree, and the times of the others."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from torch import Tensor
from torch.utils.benchmark import timer

from spectra_exp.bench.registry import Figure
from spectra_exp.bench.timing import interleaved, ratio
from spectra_exp.foundations.errors import first_line

Result = TypeVar("Result")
# Calls before a result is looked at: what is compiled or captured is so in the first ones.
FIRST_CALLS = 4


@dataclass(frozen=True)
class Way:
    """work: what is timed. result: a tensor that tells whether its last call did what the other ways do."""

    work: Callable[[], object]
    result: Callable[[], Tensor]


class Problem(str):
    """What goes wrong in a call, in one line."""


def attempted(work: Callable[[], Result]) -> Result | Problem:
    """What a call returns, or what goes wrong in it."""
    try:
        return work()
    except ImportError as error:
        return Problem(f"not installed: {first_line(error)}")
    except Exception as error:
        return Problem(f"{type(error).__name__}: {first_line(error)}")


def distance(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||."""
    return float((found - expected).norm() / expected.norm())


def not_timed(name: str, gap: float, reference: str) -> Figure:
    """What does something else than the reference is no figure of its work."""
    return Figure(name, None, f"not timed: its result is {gap:.2g} of ||{reference}|| away from it")


def compared(
    name: str, ways: Mapping[str, Callable[[], Way]], rounds: int, repeats: int, limit: float
) -> Iterator[Figure]:
    """Milliseconds of each way, and how many times as fast as the first it is. Raises what the first raises.

    ways: functions that make them. Another one that raises, or whose result is further than `limit` (as a share of its
    norm) from the first's, is a figure without a value that says so.
    """
    reference, *others = ways
    first = ways[reference]()
    expected, works = _result(first).clone(), {reference: first.work}

    def tried(other: str) -> tuple[Way, float]:
        way = ways[other]()
        return way, distance(_result(way), expected)

    for other in others:
        found = attempted(partial(tried, other))
        if isinstance(found, Problem):
            yield Figure(f"{name}_{other}", None, found)
        # Where it is no number it is not below the limit either.
        elif found[1] <= limit:
            works[other] = found[0].work
        else:
            yield not_timed(f"{name}_{other}", found[1], reference)
    times = interleaved(works, rounds, timer, repeats)
    for way in works:
        yield Figure(f"{name}_{way}", 1000 * statistics.median(times[way]), "ms")
        if way != reference:
            yield Figure(f"{name}_{way}_speed", ratio(times, reference, way), f"x {reference}", better="higher")


def _result(way: Way) -> Tensor:
    for _ in range(FIRST_CALLS):
        way.work()
    return way.result()
