"""The layer, its router and the step on a GPU, beside the bare products and other implementations."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.benchmark import timer

from spectra_exp.bench.benchmarks.layer import both_ways, passes, products_of
from spectra_exp.bench.benchmarks.routers import CAUSAL, DIM, LENGTH, linear, spectra
from spectra_exp.bench.benchmarks.step import step_subjects
from spectra_exp.bench.floor import Case, EqualGroups, Shape, make_case
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import interleaved, ratio
from spectra_exp.bench.ways import distance
from spectra_exp.moe.experts import PLAIN, TRITON
from spectra_exp.moe.experts_kernel import what_triton_lacks
from spectra_exp.moe.routing_kernel import set_routing_kernel
from spectra_exp.routing.osr import OsrConfig
from spectra_exp.routing.sequence.recurrence import recurrence
from spectra_exp.routing.sinkhorn import sinkhorn

ROUNDS, ROUTER_ROUNDS = 10, 3
# Passes one after the other in a measurement: as in training the host is ahead of the GPU.
REPEATS = 5
STEP_ROUNDS = 20
SHAPES = {
    "e128": Shape(32768, 2048, 768, 128, 8, gated=True),
    "e512": Shape(32768, 2048, 512, 512, 10, gated=True),
}
# How much likelier the first experts are.
LOADS = {"balanced": 0.0, "skewed": 1.0}
TARGET = 1.5
# On so many tokens and experts the kernels are compared with the plain path in float32 on the CPU.
CHECKED = dict(tokens=2048, num_experts=16)
UNIT = "x one equal-group bmm"
AS_FAST = "x transformers' grouped_mm"
SHARE = "% of the experts"
# Passes that are profiled, kernels that are shown of them.
PROFILED, MOST_KERNELS, LONGEST_NAME = 3, 12, 60
# Products that a kernel makes of gated experts.
PRODUCTS = dict(inner_product=2, outer_product=1, inner_gradient=1, outer_gradient=2, weight_gradient=1)
# Of the experts' time, at E 128.
ROUTER_TARGETS = {"spectra": 15.0, "spectra_triton": 15.0, "switch": 2.0}
Subjects = dict[str, Callable[[], object]]


@benchmark
def layer_gpu(outputs: Path) -> Iterable[Figure]:
    """Experts on a GPU in bf16, in multiples of one equal-group bmm of their work; what kernels and routers take."""
    return layer_figures(SHAPES, "cuda", ROUNDS)


def layer_figures(shapes: Mapping[str, Shape], device: str, rounds: int) -> Iterator[Figure]:
    """First how far the fastest way is from float32, then times; each figure as soon as it is known."""
    way = PLAIN if what_triton_lacks(device) else TRITON
    for name, shape in shapes.items():
        few = replace(shape, **{key: min(value, getattr(shape, key)) for key, value in CHECKED.items()})
        for part, error in errors_in_bf16(few, device, way).items():
            yield Figure(f"layer_{name}_{way}_error_{part}", error, "of ||float32||, bf16", 1e-2)
    for name, shape in shapes.items():
        for load, skew in LOADS.items():
            case = make_case(shape, device, torch.bfloat16, skew)
            subjects = products_of(EqualGroups(case)) | passes(case, way, partial(ours, case, way), case.experts)
            yield from times_of(subjects, f"layer_{name}_{load}", rounds)
            if case.tokens_Nd.is_cuda:
                yield from _kernel_times(subjects[way], f"layer_{name}_{load}_{way}", shape)
        yield from _router_figures(shape, f"router_{name}", device, way)


def ours(case: Case, way: str, tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
    """The output [N, d] of a case's experts by one of our ways."""
    case.experts.kernel = way
    most = case.shape.tokens * case.shape.top_k
    return case.experts(tokens_Nd, case.chosen_NE, weights_NE, most)[0]


def times_of(subjects: Subjects, name: str, rounds: int) -> Iterator[Figure]:
    """Every subject in multiples of the floor: of both passes, or of the forward pass where that is what it is."""
    began = timer()
    for work in subjects.values():
        work()
    yield Figure(f"{name}_first_calls", timer() - began, "s, kernels made and tuned", 60.0)
    times = interleaved(subjects, rounds, timer, REPEATS)
    for subject in subjects:
        key = f"{name}_{subject.replace(', ', '_')}"
        if subject.startswith("floor"):
            yield Figure(key, 1000 * statistics.median(times[subject]), "ms")
        else:
            floor = "floor, forward" if subject.endswith(", forward") else "floor"
            target = TARGET if subject.startswith(TRITON) else None
            yield Figure(key, ratio(times, subject, floor), UNIT, target)


def _kernel_times(work: Callable[[], object], name: str, shape: Shape) -> Iterator[Figure]:
    """What the kernels of a forward and a backward pass take, the longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            work()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    # Multiplications and additions of one product of all rows with one matrix.
    product = 2 * shape.tokens * shape.top_k * shape.hidden_size * shape.expert_size
    chosen = choices()
    for event in kernels[:MOST_KERNELS]:
        milliseconds, calls = event.self_device_time_total / PROFILED / 1000, event.count // PROFILED
        unit = f"ms, {calls} calls"
        if event.key in PRODUCTS:
            rate = PRODUCTS[event.key] * product * calls / milliseconds / 1e9
            unit += f", {rate:.0f} TFLOP/s, {chosen.get(event.key)}"
        yield Figure(f"{name}: {event.key[:LONGEST_NAME]}", milliseconds, unit)


def choices() -> dict[str, str]:
    """The configuration that each of our kernels last ran in."""
    from spectra_exp.moe.fused.tuning import TUNED

    return {name: str(getattr(tuner, "best_config", None)) for name, tuner in TUNED.items()}


def errors_in_bf16(shape: Shape, device: str, way: str) -> dict[str, float]:
    """Distances of output and gradients from those of float32 on the CPU, as shares of their norms."""
    case = make_case(shape, device, torch.bfloat16)
    exact = in_float32(case, "cpu")
    found = output_and_gradients(case, partial(ours, case, way), case.experts)
    expected = output_and_gradients(exact, partial(ours, exact, PLAIN), exact.experts)
    return {name: distance(found[name].cpu().float(), other) for name, other in expected.items()}


def in_float32(case: Case, device: str | torch.device) -> Case:
    """The same case in float32 on a device."""
    return Case(
        case.shape,
        copy.deepcopy(case.experts).to(device).float(),
        case.tokens_Nd.to(device).float(),
        case.chosen_NE.to(device),
        case.weights_NE.to(device),
        case.incoming_Nd.to(device).float(),
    )


def output_and_gradients(
    case: Case, forward: Callable[[Tensor, Tensor], Tensor], module: torch.nn.Module
) -> dict[str, Tensor]:
    """What `forward` of tokens and weights gives, and the gradients of both and of the module's parameters, by name."""
    tokens_Nd, weights_NE = case.tokens_Nd.detach().requires_grad_(), case.weights_NE.detach().requires_grad_()
    output_Nd = forward(tokens_Nd, weights_NE)
    inputs = {"tokens": tokens_Nd, "weights": weights_NE, **dict(module.named_parameters())}
    gradients = torch.autograd.grad(output_Nd, list(inputs.values()), case.incoming_Nd)
    return {"output": output_Nd.detach(), **dict(zip(inputs, gradients, strict=True))}


def _router_figures(shape: Shape, name: str, device: str, way: str) -> Iterator[Figure]:
    """SPECTRA's and Switch's routing, forward and backward, as a share of the experts; what SPECTRA's is made of."""
    case = make_case(shape, device, torch.bfloat16)
    length = min(LENGTH, shape.tokens)
    subjects: Subjects = {
        "experts": both_ways(case, partial(ours, case, way), case.experts),
        "spectra": spectra(shape, "min_gru", length, device),
        "switch": linear(shape, "switch", device, length, jitter=0.0),
    }
    if way == TRITON:
        subjects["spectra_triton"] = fused = spectra(shape, "min_gru", length, device)
        set_routing_kernel(fused.router, TRITON)
    times = interleaved(subjects, ROUTER_ROUNDS, timer, REPEATS)
    for router, target in ROUTER_TARGETS.items():
        if router in subjects:
            yield Figure(f"{name}_{router}", 100 * ratio(times, router, "experts"), SHARE, target)
    yield from _loop_figures(shape, name, device, length, (PLAIN, TRITON) if way == TRITON else (PLAIN,))
    if case.tokens_Nd.is_cuda:
        for router in ("spectra", "spectra_triton"):
            if router in subjects:
                yield from _kernel_times(subjects[router], f"{name}_{router}", shape)


def _loop_figures(shape: Shape, name: str, device: str, length: int, ways: Iterable[str]) -> Iterator[Figure]:
    """SPECTRA's scan and transport alone, forward and backward, and how far the kernels are from the plain path."""
    sizes = shape.tokens // length, length, shape.num_experts * DIM
    keep_BSW, add_BSW = torch.rand(sizes, device=device), torch.randn(sizes, device=device)
    cost_NE = torch.rand(shape.tokens, shape.num_experts, device=device)
    osr = OsrConfig(**CAUSAL)

    def scanned(way: str) -> tuple[Tensor, ...]:
        inputs = [t.detach().requires_grad_() for t in (keep_BSW, add_BSW)]
        states_BSW = recurrence(inputs[0], inputs[1], None, None, way)
        return states_BSW.detach(), *torch.autograd.grad(states_BSW, inputs, add_BSW)

    def transported(way: str) -> tuple[Tensor, ...]:
        leaf_NE = cost_NE.detach().requires_grad_()
        plan_NE = sinkhorn(leaf_NE, osr.sinkhorn_epsilon, osr.sinkhorn_iterations, kernel=way).plan_NE
        return plan_NE.detach(), *torch.autograd.grad(plan_NE, leaf_NE, cost_NE)

    for loop, work in {"scan": scanned, "sinkhorn": transported}.items():
        for way in ways:
            if way != PLAIN:
                error = max(map(distance, work(way), work(PLAIN)))
                yield Figure(f"{name}_{loop}_{way}_error", error, "of ||plain||", 1e-5)
        times = interleaved({way: partial(work, way) for way in ways}, ROUTER_ROUNDS, timer, REPEATS)
        for way in ways:
            yield Figure(f"{name}_{loop}_{way}", 1000 * statistics.median(times[way]), "ms")


@benchmark
def step_gpu(outputs: Path) -> list[Figure]:
    """exp10's forward and backward pass on a GPU in bf16, beside transformers of the same size."""
    subjects: dict[str, Callable[[], object]] = step_subjects("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        times = interleaved({name: subjects[name] for name in ("ours", "transformers")}, STEP_ROUNDS, timer)
    return [Figure("step_gpu", ratio(times, "transformers", "ours"), AS_FAST, 1.3, "higher")]
