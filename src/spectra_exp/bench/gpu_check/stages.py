"""The stages of the check, in the order in which they run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch.distributed.fsdp import fully_shard

from spectra_exp.bench.benchmarks.attention import attention_figures, attention_gpu
from spectra_exp.bench.benchmarks.gpu import ROUNDS, SHAPES, layer_figures, step_gpu
from spectra_exp.bench.benchmarks.peers import peer_figures
from spectra_exp.bench.benchmarks.tiny_step import ROUTERS, tiny_step_figures
from spectra_exp.bench.benchmarks.updates import update_figures
from spectra_exp.bench.floor import Shape
from spectra_exp.bench.gpu_check.stage import STAGES, Finding, Setting, Stage, stage
from spectra_exp.bench.gpu_check.training import (
    Trainee,
    flip_rate,
    flips_beyond_ties,
    largest_gap,
    rounded_once_more,
    train,
)
from spectra_exp.bench.registry import Figure
from spectra_exp.bench.small_run import batches_of, small_plan
from spectra_exp.bench.waiting import waits
from spectra_exp.config.tree import project_root
from spectra_exp.foundations.devices import full_float32
from spectra_exp.moe.accounting import number_varies
from spectra_exp.moe.attention import choose_attention
from spectra_exp.moe.experts import TRITON
from spectra_exp.moe.experts_kernel import use_experts_kernel, what_router_lacks, what_triton_lacks
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.schema import AttentionRequest, ExpertsKernelRequest
from spectra_exp.routing.base import router_class
from spectra_exp.runs.folder import RunFolder
from spectra_exp.training.build import build_model

STEPS, TINY_STEPS = 20, 2
LOSS_GAP, BF16_GAP, ROUNDINGS = 1e-3, 0.02, 5
MEMORY_STEPS, TINY_MEMORY_STEPS, MEMORY_WARM_UP = 200, 3, 20
TINY = {"tiny": Shape(64, 16, 32, 4, 2, gated=True)}
SHARERS, SHARED_STEPS = 8, 100
RUN_LIMIT_S = 240
POLL_S = 0.1


def stages() -> dict[str, Stage]:
    """All stages by name, in the order in which they run."""
    return dict(STAGES)


@stage
def tests(setting: Setting) -> Iterator[Finding]:
    """The tests that are marked `gpu`."""
    files = [p for p in sorted((project_root() / "tests").rglob("test_*.py")) if "mark.gpu" in p.read_text("utf-8")]
    files = files[: setting.of_size(len(files), 1)]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=RUN_LIMIT_S)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    counts = dict(re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)[::-1])
    yield {
        "name": "pytest",
        "passed": done.returncode == 0,
        "counts": {kind: int(number) for number, kind in counts.items()},
        "failed": lines or done.stderr.splitlines()[-1:] if done.returncode else [],
    }


@stage
def agreement(setting: Setting) -> Iterator[Finding]:
    """Every router on the CPU and on the device: decisions, losses in float32, losses and flips in bf16.

    rounding_gap: what initial weights that differ in their last bit do to the losses on the CPU alone. Where a rule's
    decisions turn on rounding, several times that is allowed.
    """
    number = setting.of_size(STEPS, TINY_STEPS)
    with full_float32():
        for router in setting.routers:
            planned = small_plan(router, number)
            batches = batches_of(planned, number)
            expected = train(planned, batches, "cpu", nullcontext())
            found = train(planned, batches, setting.device, nullcontext())
            coarse = train(planned, batches, setting.device, setting.bf16())
            rounding = largest_gap(expected, train(planned, batches, "cpu", nullcontext(), rounded_once_more))
            beyond, gap, coarse_gap = (
                flips_beyond_ties(expected, found),
                largest_gap(expected, found),
                largest_gap(found, coarse),
            )
            allowed = max(LOSS_GAP, ROUNDINGS * rounding)
            yield {
                "name": router,
                "passed": beyond == 0 and gap <= allowed and coarse_gap <= BF16_GAP,
                "flips_beyond_ties": beyond,
                "flip_rate": flip_rate(expected, found),
                "loss_gap": gap,
                "rounding_gap": rounding,
                "bf16_loss_gap": coarse_gap,
                "bf16_flip_rate": flip_rate(found, coarse),
            }


@stage
def kernels(setting: Setting) -> Iterator[Finding]:
    """The experts' Triton kernels train as PyTorch's products do, in float32 and in bf16."""
    number = setting.of_size(STEPS, TINY_STEPS)
    if lack := what_triton_lacks(setting.device):
        yield {"name": "triton", "passed": setting.device == "cpu", "left_out": lack}
        return
    fused = partial(use_experts_kernel, request=ExpertsKernelRequest(TRITON, setting.device))
    with full_float32():
        for router in setting.routers:
            if what_router_lacks(router_class(router)):
                continue
            planned = small_plan(router, number)
            batches = batches_of(planned, number)
            for arithmetic, allowed in ((nullcontext(), LOSS_GAP), (setting.bf16(), BF16_GAP)):
                plain = train(planned, batches, setting.device, arithmetic)
                found = train(planned, batches, setting.device, arithmetic, fused)
                gap = largest_gap(plain, found)
                name = f"{router}, {'float32' if allowed == LOSS_GAP else 'bf16'}"
                yield {"name": name, "passed": gap <= allowed, "loss_gap": gap, "flip_rate": flip_rate(plain, found)}


@stage
def waiting(setting: Setting) -> Iterator[Finding]:
    """No layer makes the host wait for the GPU, forward; once where tokens take different numbers of experts."""
    for router in setting.routers:
        planned = small_plan(router, 2)
        trainee = Trainee(planned, setting.device)
        first, second = batches_of(planned, 2)
        with setting.bf16():
            # What is set up once may wait.
            trainee.step(first)
        layers, places = trainee.model.routed_layers, []
        for layer in layers:
            layer.forward = watched(setting, layer.forward, places)
        with setting.bf16():
            trainee.step(second)
        # How many assignments there are is known on the GPU alone.
        allowed = len(layers) if number_varies(trainee.model) else 0
        where = ", ".join(dict.fromkeys(places))
        yield {"name": router, "passed": len(places) <= allowed, "waits": len(places), "allowed": allowed, "at": where}


def watched(setting: Setting, forward: Callable[..., Any], places: list[str]) -> Callable[..., Any]:
    """`forward` that adds to `places` where it makes the host wait."""

    def forward_watched(*inputs: Any, **named: Any) -> Any:
        with waits(setting.device, places):
            return forward(*inputs, **named)

    return forward_watched


@stage
def memory(setting: Setting) -> Iterator[Finding]:
    """Memory stays as it is from step to step."""
    number = setting.of_size(MEMORY_STEPS, TINY_MEMORY_STEPS)
    for router in setting.routers[:: max(1, len(setting.routers) - 1)]:
        planned = small_plan(router, number)
        (batch,) = batches_of(planned, 1)
        trainee, held = Trainee(planned, setting.device), []
        for _ in range(number):
            trainee.step(batch)
            held.append(setting.memory())
        after = min(MEMORY_WARM_UP, number - 1)
        yield {"name": router, "passed": held[-1] <= held[after], "bytes_early": held[after], "bytes_late": held[-1]}


@stage
def resume(setting: Setting) -> Iterator[Finding]:
    """A run that is killed goes on from its checkpoint and ends where one that never stopped does."""
    number, every = setting.of_size(200, 6), setting.of_size(20, 2)
    lines = ["debug=smoke", f"trainer.max_steps={number}", f"trainer.checkpoint_every={every}"]
    forget(setting, "whole", "cut")
    whole = summary_of(setting, "whole", *lines)
    last = time.monotonic() + RUN_LIMIT_S
    with running(setting, "cut", *lines) as cut:
        while cut.poll() is None and not list((setting.folder / "cut").glob("runs/*/checkpoints/step-*")):
            if time.monotonic() > last:
                raise RuntimeError(f"no checkpoint within {RUN_LIMIT_S} s")
            time.sleep(POLL_S)
        killed = cut.poll() is None
    resumed = summary_of(setting, "cut", *lines)
    before, after = whole["metrics"]["val_loss"], resumed["metrics"]["val_loss"]
    gap = abs(before - after) / before
    yield {"name": "spectra", "passed": killed and gap <= LOSS_GAP, "killed": killed, "loss_gap": gap}


@stage
def fsdp(setting: Setting) -> Iterator[Finding]:
    """A model sharded by FSDP in a group of one process has the losses of the plain one."""
    number = setting.of_size(STEPS, TINY_STEPS)
    planned = small_plan("switch", number)
    batches = batches_of(planned, number)
    plain = train(planned, batches, setting.device, nullcontext())
    with tempfile.TemporaryDirectory() as folder:
        place = {"init_method": f"file://{folder}/group", "rank": 0, "world_size": 1}
        torch.distributed.init_process_group({"cuda": "nccl", "cpu": "gloo"}[setting.device], **place)
        try:
            sharded = train(planned, batches, setting.device, nullcontext(), shard)
        finally:
            torch.distributed.destroy_process_group()
    gap = largest_gap(plain, sharded)
    yield {"name": "switch", "passed": gap <= LOSS_GAP, "loss_gap": gap}


def shard(model: SpectraMoeForCausalLM) -> None:
    """Share out each layer of the backbone, then what is left."""
    for block in model.backbone.model.layers:
        fully_shard(block)
    fully_shard(model)


@stage
def attention(setting: Setting) -> Iterator[Finding]:
    """PyTorch's fused attention gives what the plain one does, and which one a run would take."""
    planned = small_plan("switch", 1)
    (batch,) = batches_of(planned, 1)
    model = Trainee(planned, setting.device).model.eval()
    losses = {}
    for name in ("eager", "sdpa"):
        model.backbone.set_attn_implementation(name)
        with torch.no_grad(), full_float32():
            ids = batch["input_ids"].to(setting.device)
            losses[name] = float(model(input_ids=ids, labels=batch["labels"].to(setting.device)).lm_loss)
    chosen = choose_attention(AttentionRequest("auto", setting.device, "bf16", True), model.config.backbone)
    gap = abs(losses["eager"] - losses["sdpa"]) / losses["eager"]
    yield {"name": "sdpa", "passed": gap <= LOSS_GAP, "loss_gap": gap, "run": chosen.name, "reason": chosen.reason}


@stage
def benchmarks(setting: Setting) -> Iterator[Finding]:
    """The benchmarks of `bench-gpu`."""
    shapes = {"cuda": SHAPES, "cpu": TINY}[setting.device]
    rounds = setting.of_size(ROUNDS, 1)
    yield from findings(layer_figures(shapes, setting.device, rounds))
    yield from findings(update_figures(shapes, setting.device, rounds))
    if setting.device == "cuda":
        yield from findings(step_gpu(setting.outputs))


def findings(figures: Iterable[Figure]) -> Iterator[Finding]:
    """Figures as findings that pass: a missed target is no fault."""
    for figure in figures:
        yield {"name": figure.name, "passed": True, **figure.as_json()}


@stage
def exp10(setting: Setting) -> Iterator[Finding]:
    """One run of the temperature study's model, its time and memory."""
    lines = {
        "cuda": [
            "model=exp10",
            "router=temperature",
            "temperature=t1_0",
            "trainer.precision=bf16",
            "trainer.max_steps=50",
        ],
        "cpu": ["router=temperature", "temperature=t1_0", "debug=smoke", "trainer.max_steps=2"],
    }[setting.device]
    forget(setting, "exp10")
    began = time.perf_counter()
    summary = summary_of(setting, "exp10", *lines)
    yield {
        "name": "t1_0",
        "passed": True,
        "seconds": time.perf_counter() - began,
        "val_loss": summary["metrics"]["val_loss"],
        **{name: value for name, value in summary["timings"].items() if isinstance(value, (int, float))},
    }


@stage
def sharing(setting: Setting) -> Iterator[Finding]:
    """Tiny runs a minute on one device: one at a time, and several at once."""
    several, steps = setting.of_size(SHARERS, 2), setting.of_size(SHARED_STEPS, 2)
    minutes = {}
    for name, seeds, launcher in (
        ("alone", 1, ["launch=local"]),
        ("together", several, ["launch=parallel", f"launch.jobs={several}", f"launch.per_gpu={several}"]),
    ):
        forget(setting, f"sharing-{name}")
        began = time.perf_counter()
        lines = ["-m", "debug=smoke", f"trainer.max_steps={steps}", f"seed=0..{seeds - 1}", *launcher]
        summary_of(setting, f"sharing-{name}", *lines)
        minutes[name] = seeds / (time.perf_counter() - began) * 60
    yield {"name": "runs a minute", "passed": True, "at_once": several, "steps": steps, **minutes}


@stage
def others(setting: Setting) -> Iterator[Finding]:
    """Other ways beside ours: libraries' experts, implementations of attention, a step compiled and captured."""
    rounds = setting.of_size(ROUNDS, 1)
    yield from findings(peer_figures({"cuda": SHAPES, "cpu": TINY}[setting.device], setting.device, rounds))
    if setting.device == "cuda":
        yield from findings(attention_gpu(setting.outputs))
    else:
        planned = small_plan("switch", 1)
        (batch,) = batches_of(planned, 1)
        model = build_model(planned.experiment, planned.corpus)
        yield from findings(attention_figures(model, batch["input_ids"], setting.device, rounds))
    routed = {"cuda": ROUTERS, "cpu": setting.routers[:1]}[setting.device]
    yield from findings(tiny_step_figures(routed, setting.device, rounds))


def forget(setting: Setting, *names: str) -> None:
    """Delete what an earlier check, perhaps of other code, ran under these names."""
    for name in names:
        shutil.rmtree(setting.folder / name / "runs", ignore_errors=True)


@contextmanager
def running(setting: Setting, name: str, *lines: str) -> Iterator[subprocess.Popen]:
    """A run in a process group of its own, its output in a log beside the findings; killed where the block ends."""
    outputs = setting.folder / name
    outputs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "spectra_exp", "run", *lines]
    command += [f"outputs={outputs}", f"trainer.device={setting.device}"]
    with (outputs / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        # Also what it has started.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def summary_of(setting: Setting, name: str, *lines: str) -> dict:
    """The summary of a run that is made now. Raises RuntimeError for one that did not complete in time."""
    outputs = setting.folder / name
    with running(setting, name, *lines) as process:
        status = process.wait(RUN_LIMIT_S)
    runs = sorted((outputs / "runs").iterdir()) if (outputs / "runs").is_dir() else []
    if status or not runs:
        raise RuntimeError((outputs / "log.txt").read_text("utf-8").strip().splitlines()[-1])
    return RunFolder(runs[0].parent, runs[0].name).read_summary()
