"""What routing costs beside the experts that it routes to.

Shapes: B sequences, S tokens each, N = B S tokens, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import set_torch_threads

from spectra_exp.bench.floor import SHAPES, ExpertsFloor, Shape, make_case
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import interleaved, ratio
from spectra_exp.foundations.allocator import keep_freed_memory
from spectra_exp.moe.initial_weights import draws_itself
from spectra_exp.routing.base import Router, RoutingInput, router_class
from spectra_exp.routing.osr import OsrConfig
from spectra_exp.routing.routers.spectra import SpectraConfig, SpectraRouter
from spectra_exp.routing.selection import assignment_weights, select_topk

DIM = 32
LENGTH = 512
ROUNDS = 3
# The rule of `osr=causal`.
CAUSAL: dict[str, Any] = dict(training="potentials", potentials="hard", sinkhorn_inference="dual", sinkhorn_epsilon=0.5)
ENCODERS = ("min_gru", "gru_block", "linear")
# The dense recurrence costs more than the experts from some width on; it is timed where it is not hopeless.
DENSE_GRU_SHAPES = ("a",)
TARGETS = {("b", "spectra_min_gru"): 25.0, ("a", "switch_with_jitter"): 1.0, ("b", "switch_with_jitter"): 1.0}
LONG_TARGET = 30.0
LONG = 8192
UNIT = "% of the experts' products"


@dataclass
class Subject:
    """One router on one shape's tokens, with selection and the losses that the router itself computes."""

    router: Router
    hidden_BSd: Tensor
    top_k: int
    slope_NE: Tensor

    def __call__(self) -> None:
        """A forward and a backward pass."""
        output = self.router(RoutingInput(self.hidden_BSd.detach().requires_grad_(), training=True))
        chosen_NE = select_topk(output.scores_NE.detach(), self.top_k)
        loss = (assignment_weights(output.weights_NE, chosen_NE, self.top_k > 1) * self.slope_NE).sum()
        for name, weight in self.router.loss_coefficients(step=100, total_steps=300).items():
            if name in output.losses:
                loss = loss + weight * output.losses[name]
        loss.backward()
        self.router.zero_grad(set_to_none=True)


@benchmark
def routers(outputs: Path) -> list[Figure]:
    """Routers' forward and backward pass in % of the experts' products, by encoder and by length of sequence."""
    keep_freed_memory()
    figures = []
    with set_torch_threads(1):
        for name, shape in SHAPES.items():
            subjects: dict[str, Callable[[], object]] = {"floor": ExpertsFloor(make_case(shape)).both}
            subjects["linear_softmax_topk"] = linear(shape, "switch", jitter=0.0)
            subjects["switch_with_jitter"] = linear(shape, "switch", jitter=0.01)
            subjects["sinkhorn"] = linear(shape, "sinkhorn")
            encoders = (*ENCODERS, "gru") if name in DENSE_GRU_SHAPES else ENCODERS
            subjects |= {f"spectra_{encoder}": spectra(shape, encoder, LENGTH) for encoder in encoders}
            times = interleaved(subjects, ROUNDS, process_time)
            figures += [
                Figure(
                    f"router_{name}_{router}", 100 * ratio(times, router, "floor"), UNIT, TARGETS.get((name, router))
                )
                for router in subjects
                if router != "floor"
            ]
        figures += _lengths()
    return figures


def _lengths() -> list[Figure]:
    """SPECTRA at shape a and b for the same tokens in ever longer sequences."""
    figures = []
    for name in ("a", "b"):
        long = replace(SHAPES[name], tokens=LONG)
        subjects: dict[str, Callable[[], object]] = {"floor": ExpertsFloor(make_case(long)).both}
        lengths = (512, 2048, LONG) if name == "a" else (LONG,)
        subjects |= {f"{length}": spectra(long, "min_gru", length) for length in lengths}
        times = interleaved(subjects, 1, process_time)
        figures += [
            Figure(
                f"router_{name}_spectra_min_gru_length_{length}",
                100 * ratio(times, f"{length}", "floor"),
                UNIT,
                LONG_TARGET if length == LONG else None,
            )
            for length in lengths
        ]
    return figures


def spectra(shape: Shape, encoder: str, length: int, device: str = "cpu") -> Subject:
    """SPECTRA under `osr=causal` with one sequence encoder."""
    config, osr = SpectraConfig(dim=DIM, sequence=encoder), OsrConfig(**CAUSAL)
    router = SpectraRouter(shape.hidden_size, shape.num_experts, shape.top_k, config, osr)
    return _subject(router, shape, length, device)


def linear(shape: Shape, name: str, device: str = "cpu", length: int = LENGTH, **options: Any) -> Subject:
    """A router of one linear map."""
    cls = router_class(name)
    router = cls(shape.hidden_size, shape.num_experts, shape.top_k, cls.Config(**options))
    return _subject(router, shape, length, device)


def _subject(router: Router, shape: Shape, length: int, device: str) -> Subject:
    torch.manual_seed(0)
    modules: Iterable[Any] = router.modules()
    for module in modules:
        if draws_itself(module):
            module.reset_parameters()
    hidden_BSd = torch.randn(shape.tokens // length, length, shape.hidden_size)
    slope_NE = torch.randn(shape.tokens, shape.num_experts)
    return Subject(router.to(device).train(), hidden_BSd.to(device), shape.top_k, slope_NE.to(device))
