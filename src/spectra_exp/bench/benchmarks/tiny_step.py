"""A tiny run's passes on a GPU, where launching takes longer than computing: plain, compiled, and captured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectra_exp.bench.benchmarks.gpu import ROUNDS
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.small_run import batches_of, small_plan
from spectra_exp.bench.waiting import waits
from spectra_exp.bench.ways import FIRST_CALLS, Way, compared
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.runs.plan import Plan
from spectra_exp.training.build import build_model

ROUTERS = ("switch", "spectra")
REPEATS = 20
Passes = Callable[..., Any]
# Of the norm of all gradients: all ways compute in float32, and another order of sums may flip a tie.
LIMIT = 0.01
# There transformers asks whether sequences are packed; while a stream is captured it does not, and makes a mask.
NOT_WHILE_CAPTURED = "masking_utils.py"
# CUDA graphs are kept by the compiler too; on the CPU a rehearsal reads the code without compiling it.
COMPILED: dict[str, dict[str, Any]] = {"cuda": {"mode": "reduce-overhead"}, "cpu": {"backend": "eager"}}


@benchmark
def tiny_step_gpu(outputs: Path) -> Iterable[Figure]:
    """A tiny run's forward and backward pass on a GPU: plain, by torch.compile, and captured in a CUDA graph."""
    return tiny_step_figures(ROUTERS, "cuda", ROUNDS)


def tiny_step_figures(routers: Iterable[str], device: str, rounds: int) -> Iterator[Figure]:
    """Times of each router's passes in every way that works."""
    for router in routers:
        planned = small_plan(router, 1)
        (batch,) = batches_of(planned, 1)
        inputs = {name: values.to(device) for name, values in batch.items() if name in ("input_ids", "labels")}
        # Captured last: what breaks off while it is captured may leave the random state unusable.
        ways = {way.__name__: partial(_way, planned, inputs, device, way) for way in (plain, compiled, captured)}
        yield from compared(f"tiny_{router}", ways, rounds, REPEATS, LIMIT)
        # The compiler keeps what it has compiled, and with it the model.
        torch.compiler.reset()


def _way(planned: Plan, inputs: dict[str, Tensor], device: str, made: Callable[..., Callable[[], object]]) -> Way:
    model = build_model(planned.experiment, planned.corpus).to(device).train()
    work = made(model, partial(passes, model, inputs), inputs, device)
    return Way(work, lambda: torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None]))


def passes(model: SpectraMoeForCausalLM, inputs: dict[str, Tensor], call: Callable[..., Any] | None = None) -> Any:
    """A forward and a backward pass of the first step, with fresh gradients; the output."""
    model.set_step(0)
    model.zero_grad(set_to_none=True)
    output = (model if call is None else call)(**inputs, return_logits=False)
    output.loss.backward()
    return output


def plain(model: SpectraMoeForCausalLM, both: Passes, inputs: dict[str, Tensor], device: str) -> Passes:
    """The passes as they are."""
    return both


def compiled(model: SpectraMoeForCausalLM, both: Passes, inputs: dict[str, Tensor], device: str) -> Passes:
    """The passes of the compiled model."""
    call = torch.compile(model, **COMPILED[device])

    def work() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        both(call=call)

    return work


def captured(
    model: SpectraMoeForCausalLM, both: Passes, inputs: dict[str, Tensor], device: str
) -> Callable[[], object]:
    """The passes launched as one graph. Raises SpectraError where the model makes the host wait."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    places: list[str] = []
    with torch.cuda.stream(stream):
        for _ in range(FIRST_CALLS):
            both()
        with waits(device, places):
            both()
    torch.cuda.current_stream().wait_stream(stream)
    if places := [place for place in dict.fromkeys(places) if not place.startswith(NOT_WHILE_CAPTURED)]:
        raise SpectraError(f"the host waits for the GPU at {', '.join(places)}")
    graph, before = torch.cuda.CUDAGraph(), both()
    with torch.cuda.graph(graph):
        output = both()

    def replay() -> object:
        graph.replay()
        # What the graph reads, the pass before whose counts it takes in, and what it writes: both stay where they are.
        return before, output

    return replay
