"""Stages that measure: layers and their routers, whole passes, and other ways beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spectra_exp.bench.benchmarks.attention import attention_figures, attention_gpu
from spectra_exp.bench.benchmarks.gpu import ROUNDS, SHAPES, layer_figures, step_gpu
from spectra_exp.bench.benchmarks.peers import peer_figures
from spectra_exp.bench.benchmarks.tiny_step import ROUTERS, tiny_step_figures
from spectra_exp.bench.benchmarks.updates import update_figures
from spectra_exp.bench.floor import Shape
from spectra_exp.bench.gpu_check.stage import Finding, Setting
from spectra_exp.bench.registry import Figure
from spectra_exp.bench.small_run import batches_of, small_plan
from spectra_exp.training.build import build_model

TINY = {"tiny": Shape(64, 16, 32, 4, 2, gated=True)}


def steps(setting: Setting) -> Iterator[Finding]:
    """What quantiles and potentials take to update, and the passes of `model=exp10` beside transformers'."""
    yield from findings(update_figures(shapes_of(setting), setting.device, setting.of_size(ROUNDS, 1)))
    if setting.device == "cuda":
        yield from findings(step_gpu(setting.outputs))


def layers(setting: Setting) -> Iterator[Finding]:
    """Large layers: their experts in multiples of one product of the same work, and their routers."""
    yield from findings(layer_figures(shapes_of(setting), setting.device, setting.of_size(ROUNDS, 1)))


def others(setting: Setting) -> Iterator[Finding]:
    """Other ways beside ours: a step compiled and captured, implementations of attention, libraries' experts."""
    rounds = setting.of_size(ROUNDS, 1)
    routed = {"cuda": ROUTERS, "cpu": setting.routers[:1]}[setting.device]
    yield from findings(tiny_step_figures(routed, setting.device, rounds))
    if setting.device == "cuda":
        yield from findings(attention_gpu(setting.outputs))
    else:
        planned = small_plan("switch", 1)
        (batch,) = batches_of(planned, 1)
        model = build_model(planned.experiment, planned.corpus)
        yield from findings(attention_figures(model, batch["input_ids"], setting.device, rounds))
    # Last, since libraries may take long to make and tune their kernels.
    yield from findings(peer_figures(shapes_of(setting), setting.device, rounds))


def findings(figures: Iterable[Figure]) -> Iterator[Finding]:
    """Figures as findings that pass: a missed target is no fault, and what could not be measured is left out."""
    for figure in figures:
        yield {"name": figure.name, "passed": None if figure.value is None else True, **figure.as_json()}


def shapes_of(setting: Setting) -> dict[str, Shape]:
    """The layers that are measured."""
    return {"cuda": SHAPES, "cpu": TINY}[setting.device]
