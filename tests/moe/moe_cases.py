"""Small models that the tests of this room share.

Letters: B sequences, S tokens each, E experts, K experts per token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig

from spectra_exp.moe.model import SpectraMoeForCausalLM, new_model
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import router_class, routers
from spectra_exp.routing.osr import NoOsr, OsrConfig
from spectra_exp.routing.selection import SelectionConfig

VOCABULARY, HIDDEN = 61, 16
# Matrices of routers and of the dense MLP; experts' stacks are named by their module.
LARGER = ("linear.weight", "up.weight", "gate.weight", "down.weight")
ROUTERS = [name for name, cls in routers().items() if not cls.needs_source]
ROUTED = [name for name in ROUTERS if name != "dense"]


def backbone_of(**changes) -> LlamaConfig:
    values = dict(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaConfig(**(values | changes))


def settings_of(
    name: str, *, osr: dict | None = None, selection: dict | None = None, router: dict | None = None, **own
) -> MoeSettings:
    """Settings of a small model; `own` are MoeSettings' own fields."""
    cls = router_class(name)
    values = dict(
        num_experts=4,
        top_k=2,
        expert_size=8,
        router=cls.Config(**(router or {})),
        osr=OsrConfig(**(osr or {})) if cls.uses_osr else NoOsr(),
        selection=SelectionConfig(**({"rule": cls.selections()[0]} | (selection or {}))),
    )
    return MoeSettings(**(values | own))


def model_of(name: str, *, seed: int = 0, backbone: LlamaConfig | None = None, **settings) -> SpectraMoeForCausalLM:
    """A small new model in training mode; the balanced hash router knows its token counts."""
    model = new_model(backbone or backbone_of(), settings_of(name, **settings), seed)
    for layer in model.routed_layers:
        layer.router.set_token_counts(np.arange(VOCABULARY)[::-1].copy())
    return model.train()


def ids_of(b: int = 3, s: int = 12, seed: int = 0) -> Tensor:
    """Ids from 3 on: none of the special tokens."""
    return torch.randint(3, VOCABULARY, (b, s), generator=torch.Generator().manual_seed(seed))


def train_pass(model: SpectraMoeForCausalLM, ids: Tensor, step: int = 0) -> Tensor:
    """The loss of one optimizer step's pass, after its backward pass; no weight moves."""
    model.set_step(step)
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    model.after_optimizer_step(1.0)
    return loss.detach()


def settled(model: SpectraMoeForCausalLM, gain: float = 6.0) -> SpectraMoeForCausalLM:
    """The model in evaluation mode with running averages begun, and weights large enough for routing to matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "experts" in name or name.endswith(LARGER):
                parameter.mul_(gain)
    with torch.enable_grad():
        for step in range(3):
            train_pass(model, ids_of(4, 16, seed=10 + step), step)
    model.zero_grad()
    return model.eval()


def logits_of(model: SpectraMoeForCausalLM) -> Callable[[Tensor], Tensor]:
    return lambda ids: model(input_ids=ids, use_cache=False).logits
