"""Times of several things measured in turns, so that a busy machine slows all of them alike.

torch.utils.benchmark measures one thing to its end before the next, and warms up in each measurement, which an hour of
products cannot afford; its clock, which waits for the device, and its number of threads are used.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from spectra_exp.foundations.allocator import hand_memory_back, keep_freed_memory


def interleaved(
    subjects: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float], repeats: int = 1
) -> dict[str, list[float]]:
    """Seconds of a call of each subject, one entry a round after a first that does not count.

    repeats: calls one after the other of which an entry is the mean.
    clock: `time.process_time`, time of all of this process's threads on a core, to which other processes do little; or
    `torch.utils.benchmark.timer`, time on the wall with the device's work: for several threads or a GPU.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(rounds + 1):
        for name, work in subjects.items():
            with work.arranged() if isinstance(work, AsOthersRun) else nullcontext():
                began = clock()
                for _ in range(repeats):
                    work()
                seconds = clock() - began
            if turn:
                times[name].append(seconds / repeats)
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
