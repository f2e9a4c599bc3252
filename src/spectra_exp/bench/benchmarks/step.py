"""A training step of model=exp10 beside the same size in transformers and beside its bare matrix products."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch.utils.benchmark import set_torch_threads, timer
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from spectra_exp.bench.floor import Products
from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import AsOthersRun, interleaved, ratio
from spectra_exp.foundations.allocator import keep_freed_memory
from spectra_exp.moe.experts_kernel import use_experts_kernel
from spectra_exp.moe.model import SpectraMoeForCausalLM, new_model
from spectra_exp.moe.schema import ExpertsKernelRequest
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import router_class
from spectra_exp.routing.osr import NoOsr
from spectra_exp.routing.selection import SelectionConfig

# model=exp10 (docs/method.md 4): 79 M parameters.
LAYERS, HIDDEN, HEADS, EXPERTS, TOP_K, WIDTH, VOCABULARY = 6, 384, 8, 8, 2, 1536, 49152
# A micro-batch; a sixth of it on the CPU.
SEQUENCES, LENGTH = {"cuda": 24, "cpu": 4}, 512
ROUNDS = 2


@benchmark
def step(outputs: Path) -> list[Figure]:
    """exp10's forward and backward pass: speed beside transformers' of the same size, multiples of its products."""
    keep_freed_memory()
    subjects = step_subjects()
    with set_torch_threads(1):
        times = interleaved(subjects, ROUNDS, process_time)
    figures = [
        _against_transformers("step_against_transformers", times, "x as fast, 1 thread"),
        Figure("step_products", ratio(times, "ours", "floor"), "x the products, 1 thread", 1.45),
        Figure("step_transformers_products", ratio(times, "transformers", "floor"), "x the products, 1 thread"),
        Figure("step_seconds", min(times["ours"]), "CPU s, 1 thread"),
    ]
    with set_torch_threads(os.cpu_count() or 1):
        times = interleaved(subjects, 1, timer)
    return [*figures, _against_transformers("step_against_transformers_all_threads", times, "x as fast")]


def _against_transformers(name: str, times: dict[str, list[float]], unit: str) -> Figure:
    return Figure(name, ratio(times, "transformers", "ours"), unit, 1.15, "higher")


def step_subjects(device: str = "cpu") -> dict[str, Callable[[], object]]:
    """Forward and backward passes over random tokens, by name."""
    torch.manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (SEQUENCES[device], LENGTH), device=device)
    ours, theirs = exp10().to(device).train(), transformers_of_the_same_size().to(device).train()
    use_experts_kernel(ours, ExpertsKernelRequest("auto", device))
    return {
        "floor": _floor(device),
        "ours": lambda: both_ways(ours, input_ids=ids, labels=ids, return_logits=False),
        "transformers": AsOthersRun(lambda: both_ways(theirs, input_ids=ids, labels=ids)),
    }


def both_ways(model: Any, **inputs: Any) -> None:
    """A forward and a backward pass."""
    model(**inputs).loss.backward()
    model.zero_grad(set_to_none=True)


def exp10() -> SpectraMoeForCausalLM:
    """The temperature study's model with its router."""
    backbone = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
    )
    settings = MoeSettings(
        num_experts=EXPERTS,
        top_k=TOP_K,
        expert_size=WIDTH,
        gated=False,
        router=router_class("temperature").Config(),
        osr=NoOsr(),
        selection=SelectionConfig(),
    )
    return new_model(backbone, settings, seed=0)


def transformers_of_the_same_size() -> Any:
    """Mixtral with exp10's parameters and products: its gated experts are two thirds as wide."""
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH * 2 // 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        num_local_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        sliding_window=None,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    model.set_experts_implementation("grouped_mm")
    return model


def _floor(device: str) -> Callable[[], None]:
    """The products of the linear maps; attention between tokens, norms and activations are left out."""
    tokens = SEQUENCES[device] * LENGTH
    each = tokens * TOP_K // EXPERTS
    maps = [(HIDDEN, HIDDEN, tokens)] * 4 + [(WIDTH, HIDDEN, each), (HIDDEN, WIDTH, each)] * EXPERTS
    *layer, head = (
        Products(torch.randn(out, inner, device=device), torch.randn(rows, inner, device=device))
        for out, inner, rows in [*maps, (VOCABULARY, HIDDEN, tokens)]
    )

    def run() -> None:
        for product in [*layer * LAYERS, head]:
            product.forward()
            product.backward()

    return run
