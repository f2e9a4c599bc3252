"""Stages that train in this process: a GPU against the CPU, kernels against products, waiting, memory, FSDP."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed
from torch.distributed.fsdp import fully_shard

from spectra_exp.bench.gpu_check.stage import Finding, Setting
from spectra_exp.bench.gpu_check.training import (
    LOSS_GAP,
    Trainee,
    flip_rate,
    flips_beyond_ties,
    largest_gap,
    rounded_once_more,
    train,
)
from spectra_exp.bench.small_run import batches_of, small_plan
from spectra_exp.bench.waiting import waits
from spectra_exp.foundations.devices import full_float32
from spectra_exp.moe.accounting import number_varies
from spectra_exp.moe.attention import choose_attention
from spectra_exp.moe.experts import TRITON
from spectra_exp.moe.experts_kernel import use_experts_kernel, what_router_lacks, what_triton_lacks
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.routing_kernel import use_routing_kernel
from spectra_exp.moe.schema import AttentionRequest, ExpertsKernelRequest
from spectra_exp.routing.base import router_class

STEPS, TINY_STEPS = 20, 2
BF16_GAP, ROUNDINGS = 0.02, 5
MEMORY_STEPS, TINY_MEMORY_STEPS, MEMORY_WARM_UP = 200, 3, 20


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


def kernels(setting: Setting) -> Iterator[Finding]:
    """The Triton kernels of experts and routing train as PyTorch's operations do, in float32 and in bf16."""
    number = setting.of_size(STEPS, TINY_STEPS)
    if lack := what_triton_lacks(setting.device):
        yield {"name": "triton", "passed": None if setting.device == "cpu" else False, "left_out": lack}
        return

    def fused(model: SpectraMoeForCausalLM) -> None:
        use_experts_kernel(model, ExpertsKernelRequest(TRITON, setting.device))
        use_routing_kernel(model, "auto", setting.device)

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


def waiting(setting: Setting) -> Iterator[Finding]:
    """No layer makes the host wait for the GPU, forward; once where tokens take different numbers of experts."""
    for router in setting.routers:
        planned = small_plan(router, 2)
        trainee = Trainee(planned, setting.device)
        first, second = batches_of(planned, 2)
        with setting.bf16():
            # What is set up once may wait.
            trainee.step(first)
        layers = trainee.model.routed_layers
        places: list[str] = []
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


def fsdp(setting: Setting) -> Iterator[Finding]:
    """A model sharded by FSDP in a group of one process has the losses of the plain one."""
    number = setting.of_size(STEPS, TINY_STEPS)
    planned = small_plan("switch", number)
    batches = batches_of(planned, number)
    plain = train(planned, batches, setting.device, nullcontext())
    with tempfile.TemporaryDirectory() as folder:
        backend = {"cuda": "nccl", "cpu": "gloo"}[setting.device]
        torch.distributed.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
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
