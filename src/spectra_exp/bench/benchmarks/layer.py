"""The experts of a routed layer beside the floor of their matrix products and beside other implementations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import process_time

import torch
from torch import Tensor
from torch.utils.benchmark import set_torch_threads, timer

from spectra_exp.bench.floor import SHAPES, Case, ExpertsFloor, InTurn, make_case
from spectra_exp.bench.peers import TransformersExperts, masked_loop
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import AsOthersRun, interleaved, ratio
from spectra_exp.foundations.allocator import keep_freed_memory

TARGETS = {"a": 1.08, "b": 1.12, "c": 1.25}
FORWARD_TARGETS = {"a": 1.10, "b": 1.10, "c": None}
ROUNDS = 5
# Six times the floor and more where experts are many: known, and too long to be measured each time.
NOT_TIMED = {("b", "eager")}
UNIT = "x the products, 1 thread"


@benchmark
def layer(outputs: Path) -> list[Figure]:
    """Experts' forward and backward pass in multiples of their bare products; peers beside them, 1 and all threads."""
    keep_freed_memory()
    figures = []
    for name, shape in SHAPES.items():
        case = make_case(shape)
        subjects = layer_subjects(case)
        peers = peer_subjects(case, name)
        with set_torch_threads(1):
            times = interleaved(subjects, ROUNDS, process_time)
            # Apart: they hand their memory back, which ours would have to ask for anew.
            beside = interleaved({"floor": subjects["floor"], **peers}, 2, process_time)
        figures.append(Figure(f"layer_{name}", ratio(times, "ours", "floor"), UNIT, TARGETS[name]))
        figures.append(
            Figure(
                f"layer_{name}_forward", ratio(times, "ours, forward", "floor, forward"), UNIT, FORWARD_TARGETS[name]
            )
        )
        figures += [Figure(f"layer_{name}_{peer}", ratio(beside, peer, "floor"), UNIT) for peer in peers]
        figures.append(Figure(f"layer_{name}_largest_error", largest_error(case), "against the masked loop", 1e-5))
        with set_torch_threads(os.cpu_count() or 1):
            few = {name: subjects[name] for name in ("floor", "ours")}
            times = interleaved(few, ROUNDS, timer)
        figures.append(Figure(f"layer_{name}_all_threads", ratio(times, "ours", "floor"), "x the products"))
    return figures


def layer_subjects(case: Case) -> dict[str, Callable[[], object]]:
    """Ours and the floor, by name: forward and backward unless it says otherwise."""

    def ours(tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
        return case.experts(tokens_Nd, case.chosen_NE, weights_NE)[0]

    return products_of(ExpertsFloor(case)) | passes(case, "ours", ours, case.experts)


def products_of(floor: InTurn) -> dict[str, Callable[[], object]]:
    """The bare products, forward and backward, and forward alone."""
    return {"floor": floor.both, "floor, forward": floor.forward}


def passes(
    case: Case, name: str, forward: Callable[[Tensor, Tensor], Tensor], module: torch.nn.Module
) -> dict[str, Callable[[], object]]:
    """Forward and backward, and forward alone without a gradient."""
    alone = torch.no_grad()(lambda: forward(case.tokens_Nd, case.weights_NE))
    return {name: both_ways(case, forward, module), f"{name}, forward": alone}


def peer_subjects(case: Case, name: str) -> dict[str, Callable[[], object]]:
    """Forward and backward passes of other implementations, by name."""
    subjects: dict[str, Callable[[], object]] = {
        "masked_loop": AsOthersRun(both_ways(case, lambda x, w: masked_loop(case, x, w), case.experts)),
    }
    for implementation in ("eager", "grouped_mm"):
        if (name, implementation) not in NOT_TIMED:
            peer = TransformersExperts(case, implementation).to(case.tokens_Nd.device)
            subjects[f"transformers_{implementation}"] = AsOthersRun(both_ways(case, peer, peer))
    return subjects


def both_ways(case: Case, forward: Callable[[Tensor, Tensor], Tensor], module: torch.nn.Module) -> Callable[[], None]:
    """A forward and a backward pass with fresh gradients of tokens, weights and parameters."""

    def run() -> None:
        tokens_Nd, weights_NE = case.tokens_Nd.detach().requires_grad_(), case.weights_NE.detach().requires_grad_()
        forward(tokens_Nd, weights_NE).backward(case.incoming_Nd)
        module.zero_grad(set_to_none=True)

    return run


@torch.no_grad()
def largest_error(case: Case) -> float:
    """Largest difference of our output from the masked loop's."""
    ours = case.experts(case.tokens_Nd, case.chosen_NE, case.weights_NE)[0]
    return float((ours - masked_loop(case, case.tokens_Nd, case.weights_NE)).abs().max())
