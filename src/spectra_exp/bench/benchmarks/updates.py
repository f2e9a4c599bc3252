"""What a step's end does to a router's biases or potentials on a GPU.

Shapes: N tokens, E experts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.benchmark import timer

from spectra_exp.bench.benchmarks.gpu import ROUNDS, SHAPES
from spectra_exp.bench.benchmarks.routers import LENGTH, Subject, linear, spectra
from spectra_exp.bench.floor import Shape
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import interleaved
from spectra_exp.bench.waiting import waits
from spectra_exp.routing.base import RoutingInput
from spectra_exp.routing.quantiles import needed_bias

# Microseconds a layer.
TARGET = 50.0
# An update takes little more than a launch.
REPEATS = 50
# An update does not see the width of what was routed.
WIDTH = 64


@benchmark
def updates_gpu(outputs: Path) -> Iterable[Figure]:
    """Microseconds that a step's end takes a layer on a GPU: quantiles by both estimators, and hard potentials."""
    return update_figures(SHAPES, "cuda", ROUNDS)


def update_figures(shapes: Mapping[str, Shape], device: str, rounds: int) -> Iterator[Figure]:
    """Times of the updates by a step of one pass, and of what the quantile adds to that pass."""
    for name, shape in shapes.items():
        narrow = replace(shape, hidden_size=min(WIDTH, shape.hidden_size))
        length = min(LENGTH, shape.tokens)
        exact = linear(narrow, "quantile", device, length)
        works = {
            "quantile_exact": update_of(exact),
            "quantile_histogram": update_of(linear(narrow, "quantile", device, length, estimator="histogram")),
            "potentials_hard": update_of(spectra(narrow, "min_gru", length, device)),
            "quantile_in_the_pass": needed_of(exact),
        }
        counted = {rule: operations_of(work, device) for rule, work in works.items()}
        times = interleaved(works, rounds, timer, REPEATS)
        for rule in works:
            microseconds = 1e6 * statistics.median(times[rule])
            target = None if rule == "quantile_in_the_pass" else TARGET
            yield Figure(f"update_{name}_{rule}", microseconds, f"us a layer, {counted[rule]}", target)


@torch.no_grad()
def update_of(subject: Subject) -> Callable[[], None]:
    """A router's answer to a step: it takes what its pass found, and moves."""
    router = subject.router
    updates = router(RoutingInput(subject.hidden_BSd, training=True)).updates
    counts_E = torch.full((router.num_experts,), float(len(subject.slope_NE)), device=subject.slope_NE.device)

    def update() -> None:
        router.commit(updates)
        router.after_step(counts_E, 1.0)

    return update


@torch.no_grad()
def needed_of(subject: Subject) -> Callable[[], object]:
    """What each token would have needed at each expert, which the quantile is taken of."""
    router = subject.router
    scores_NE = router(RoutingInput(subject.hidden_BSd, training=False)).weights_NE
    return partial(needed_bias, scores_NE, router.get_buffer("bias_E"), router.top_k)


class Operations(TorchDispatchMode):
    """Counts what is computed; views are not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def operations_of(work: Callable[[], object], device: str) -> str:
    """How many operations a call is made of, and how often the host waits for the device in it."""
    places: list[str] = []
    work()
    with Operations() as operations, waits(device, places):
        work()
    return f"{operations.count} operations, {len(places)} waits"
