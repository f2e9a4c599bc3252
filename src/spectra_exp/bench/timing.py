"""Times of several things measured in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch

from spectra_exp.foundations.allocator import hand_memory_back, keep_freed_memory


def processor_seconds(work: Callable[[], object]) -> float:
    """Time of all of this process's threads on a core: what other processes do counts little."""
    started = time.process_time()
    work()
    return time.process_time() - started


def wall_seconds(work: Callable[[], object]) -> float:
    """Time on the clock, the device's work included: what counts with several threads or a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def interleaved(
    subjects: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[Callable[[], object]], float]
) -> dict[str, list[float]]:
    """Seconds of each subject, one entry a round after a first that does not count."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(rounds + 1):
        for name, work in subjects.items():
            with work.arranged() if isinstance(work, AsOthersRun) else nullcontext():
                seconds = clock(work)
            if turn:
                times[name].append(seconds)
    return times


def ratio(times: Mapping[str, list[float]], name: str, to: str) -> float:
    """Median over rounds of one subject's time in multiples of another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


class AsOthersRun:
    """Work done under the system's usual memory allocation: other people's code does not come with our setting."""

    def __init__(self, work: Callable[[], object]):
        self.work = work

    def __call__(self) -> object:
        return self.work()

    @contextmanager
    def arranged(self) -> Iterator[None]:
        """A block, itself not timed, in which the work finds things as elsewhere; it is done once before."""
        hand_memory_back()
        try:
            self.work()
            yield
        finally:
            keep_freed_memory()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """A block in which torch uses this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
