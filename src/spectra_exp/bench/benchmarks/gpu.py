"""The layer, its router and the step on a GPU, beside the bare products and other implementations."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.benchmark import timer

from spectra_exp.bench.benchmarks.layer import both_ways
from spectra_exp.bench.benchmarks.routers import LENGTH, linear, spectra
from spectra_exp.bench.benchmarks.step import step_subjects
from spectra_exp.bench.floor import Case, EqualGroups, GroupedProducts, Shape, make_case
from spectra_exp.bench.peers import TransformersExperts
from spectra_exp.bench.registry import Figure, benchmark, write_figures
from spectra_exp.bench.timing import AsOthersRun, interleaved, ratio
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.experts import PLAIN, TRITON
from spectra_exp.moe.experts_kernel import what_triton_lacks

ROUNDS = 10
STEP_ROUNDS = 20
SHAPES = {
    "e128": Shape(32768, 2048, 768, 128, 8, gated=True),
    "e512": Shape(32768, 2048, 512, 512, 10, gated=True),
}
# How much likelier the first experts are.
LOADS = {"balanced": 0.0, "skewed": 1.0}
TARGETS = {TRITON: 1.5}
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
ROUTER_TARGETS = {"spectra": 15.0, "switch": 2.0}


@benchmark
def layer_gpu(outputs: Path) -> list[Figure]:
    """Experts on a GPU in bf16, in multiples of one equal-group bmm of their work; peers and routers beside them."""
    _need_gpu("layer_gpu")
    figures: list[Figure] = []
    for figure in layer_figures(SHAPES, "cuda", ROUNDS):
        figures.append(figure)
        # What is measured is kept if the machine goes.
        write_figures(outputs, figures)
    return figures


def layer_figures(shapes: Mapping[str, Shape], device: str, rounds: int) -> Iterator[Figure]:
    """First how far each way is from float32, then times; each figure as soon as it is known."""
    ways = [PLAIN] if what_triton_lacks(device) else [TRITON, PLAIN]
    for name, shape in shapes.items():
        few = replace(shape, **{key: min(value, getattr(shape, key)) for key, value in CHECKED.items()})
        for way, error in errors_in_bf16(few, device, ways).items():
            yield Figure(f"layer_{name}_{way}_error", error, "of ||float32||, bf16", 1e-2)
    for name, shape in shapes.items():
        for load, skew in LOADS.items():
            case = make_case(shape, device, torch.bfloat16, skew)
            yield from _times_of(case, f"layer_{name}_{load}", ways, rounds)
        yield from _router_shares(shape, f"router_{name}", device, ways[0], rounds)


def _times_of(case: Case, name: str, ways: list[str], rounds: int) -> Iterator[Figure]:
    began = timer()
    subjects = {subject: work for subject, work in gpu_subjects(case, ways).items() if runs(subject, work)}
    yield Figure(f"{name}_first_calls", timer() - began, "s, kernels made and tuned", 60.0)
    times = interleaved(subjects, rounds, timer)
    for floor in ("floor", "floor, forward"):
        yield Figure(f"{name}_{_key(floor)}", 1000 * sorted(times[floor])[rounds // 2], "ms")
    for subject in subjects:
        if not subject.startswith("floor"):
            floor = "floor, forward" if subject.endswith(", forward") else "floor"
            target = TARGETS.get(subject.removesuffix(", forward"))
            yield Figure(f"{name}_{_key(subject)}", ratio(times, subject, floor), UNIT, target)
    for way in ways:
        if way in subjects:
            yield from _kernel_times(case, f"{name}_{way}", subjects[way])


def _kernel_times(case: Case, name: str, work: Callable[[], object]) -> Iterator[Figure]:
    """What the kernels of a forward and a backward pass take, the longest first."""
    if not case.tokens_Nd.is_cuda:
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            work()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    shape = case.shape
    # Multiplications and additions of one product of all rows with one matrix.
    product = 2 * shape.tokens * shape.top_k * shape.hidden_size * shape.expert_size
    for event in kernels[:MOST_KERNELS]:
        milliseconds, calls = event.self_device_time_total / PROFILED / 1000, event.count // PROFILED
        rate = PRODUCTS.get(event.key, 0) * product * calls / milliseconds / 1e9
        unit = f"ms, {calls} calls" + (f", {rate:.0f} TFLOP/s" if rate else "")
        yield Figure(f"{name}: {event.key[:LONGEST_NAME]}", milliseconds, unit)
    if name.endswith(TRITON):
        from spectra_exp.moe.fused.tuning import trials

        for line in trials():
            print(line, file=sys.stderr)


def runs(name: str, work: Callable[[], object]) -> bool:
    """Whether work can be done on this machine; what is wrong is said."""
    try:
        work()
    except RuntimeError as error:
        print(f"{name} is left out: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return False
    return True


def _key(subject: str) -> str:
    return subject.replace(", ", "_")


def gpu_subjects(case: Case, ways: list[str]) -> dict[str, Callable[[], object]]:
    """The floor, our ways and other implementations by name: forward and backward unless it says otherwise."""
    floor, grouped = EqualGroups(case), GroupedProducts(case)
    with torch.device(case.tokens_Nd.device):
        peer = TransformersExperts(case, "grouped_mm").to(case.tokens_Nd)
    subjects: dict[str, Callable[[], object]] = {"floor": floor.both, "floor, forward": floor.forward}
    for way in ways:
        forward = partial(_ours, case, way)
        subjects[way] = both_ways(case, forward, case.experts)
        subjects[f"{way}, forward"] = _without_gradient(case, forward)
    subjects |= {"grouped_mm": grouped.both, "grouped_mm, forward": torch.no_grad()(grouped.forward)}
    subjects["transformers"] = AsOthersRun(both_ways(case, peer, peer))
    subjects["transformers, forward"] = AsOthersRun(_without_gradient(case, peer))
    return subjects


def _ours(case: Case, way: str, tokens_Nd: Tensor, weights_NE: Tensor) -> Tensor:
    case.experts.kernel = way
    most = case.shape.tokens * case.shape.top_k
    return case.experts(tokens_Nd, case.chosen_NE, weights_NE, most)[0]


def _without_gradient(case: Case, forward: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
    return torch.no_grad()(lambda: forward(case.tokens_Nd, case.weights_NE))


def errors_in_bf16(shape: Shape, device: str, ways: list[str]) -> dict[str, float]:
    """Of each way: the largest distance of output and gradients from float32's on the CPU, as a share of their norm."""
    case = make_case(shape, device, torch.bfloat16)
    exact = Case(shape, copy.deepcopy(case.experts).cpu().float(), *(t.cpu() for t in _tensors(case)))
    exact.tokens_Nd, exact.incoming_Nd = exact.tokens_Nd.float(), exact.incoming_Nd.float()
    expected = _output_and_gradients(exact, PLAIN)
    return {
        way: max(
            float((one.cpu().float() - other).norm() / other.norm())
            for one, other in zip(_output_and_gradients(case, way), expected, strict=True)
        )
        for way in ways
    }


def _tensors(case: Case) -> tuple[Tensor, ...]:
    return case.tokens_Nd, case.chosen_NE, case.weights_NE, case.incoming_Nd


def _output_and_gradients(case: Case, way: str) -> list[Tensor]:
    tokens_Nd, weights_NE = case.tokens_Nd.detach().requires_grad_(), case.weights_NE.detach().requires_grad_()
    output_Nd = _ours(case, way, tokens_Nd, weights_NE)
    gradients = torch.autograd.grad(output_Nd, [tokens_Nd, weights_NE, *case.experts.parameters()], case.incoming_Nd)
    return [output_Nd.detach(), *gradients]


def _router_shares(shape: Shape, name: str, device: str, way: str, rounds: int) -> Iterator[Figure]:
    """SPECTRA's and Switch's routing, forward and backward, as a share of the experts."""
    case = make_case(shape, device, torch.bfloat16)
    length = min(LENGTH, shape.tokens)
    subjects = {
        "experts": both_ways(case, partial(_ours, case, way), case.experts),
        "spectra": spectra(shape, "min_gru", length, device),
        "switch": linear(shape, "switch", device, length, jitter=0.0),
    }
    times = interleaved(subjects, rounds, timer)
    for router, target in ROUTER_TARGETS.items():
        yield Figure(f"{name}_{router}", 100 * ratio(times, router, "experts"), SHARE, target)


@benchmark
def step_gpu(outputs: Path) -> list[Figure]:
    """exp10's forward and backward pass on a GPU in bf16, beside transformers of the same size."""
    _need_gpu("step_gpu")
    subjects: dict[str, Callable[[], object]] = step_subjects("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        times = interleaved({name: subjects[name] for name in ("ours", "transformers")}, STEP_ROUNDS, timer)
    return [Figure("step_gpu", ratio(times, "transformers", "ours"), AS_FAST, 1.1, "higher")]


def _need_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        raise SpectraError(f"benchmark {name}: torch sees no GPU")
