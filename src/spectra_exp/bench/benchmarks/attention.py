"""A step of model=exp10 on a GPU by flash-attention 2, beside PyTorch's fused attention."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from spectra_exp.bench.benchmarks.gpu import REPEATS, ROUNDS
from spectra_exp.bench.benchmarks.step import LENGTH, VOCABULARY, both_ways, exp10
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.ways import Way, compared
from spectra_exp.moe.attention import FLASH, use_attention
from spectra_exp.moe.experts_kernel import use_experts_kernel
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.schema import AttentionRequest, ExpertsKernelRequest

# As many as keep a GPU busy; a run of the temperature study has 96.
SEQUENCES = 32
WAYS = ("sdpa", FLASH)
# Of the norm of the gradient of the first layer's queries. In bf16 right ones are 0.07 apart, decisions that rounding
# flips included; half the scale of the scores makes 0.5, a look at later tokens 1.
LIMIT = 0.2


@benchmark
def attention_gpu(outputs: Path) -> Iterable[Figure]:
    """exp10's forward and backward pass in bf16 on a GPU by flash-attention 2, beside PyTorch's fused attention."""
    torch.manual_seed(0)
    return attention_figures(exp10(), torch.randint(0, VOCABULARY, (SEQUENCES, LENGTH)), "cuda", ROUNDS)


def attention_figures(model: SpectraMoeForCausalLM, ids_BS: Tensor, device: str, rounds: int) -> Iterator[Figure]:
    """Times of a model's passes by each implementation of attention that works here and agrees with the first."""
    ways = {name: partial(_way, model, ids_BS.to(device), device, name) for name in WAYS}
    yield from compared("attention", ways, rounds, REPEATS, LIMIT)


def _way(model: SpectraMoeForCausalLM, ids_BS: Tensor, device: str, name: str) -> Way:
    own = copy.deepcopy(model).to(device).train()
    use_attention(own, AttentionRequest(name, device, "bf16", cross_document=True))
    use_experts_kernel(own, ExpertsKernelRequest("auto", device))
    last: deque[Tensor] = deque(maxlen=1)
    own.backbone.model.layers[0].self_attn.q_proj.weight.register_hook(last.append)

    def work() -> None:
        with torch.autocast(device, torch.bfloat16):
            both_ways(own, input_ids=ids_BS, labels=ids_BS, return_logits=False)

    return Way(work, lambda: last[0])
