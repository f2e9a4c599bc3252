"""Tiny random models of Hugging Face families, made from their own configurations."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 61
_SMALL = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
)
_GROUPED = dict(num_key_value_heads=1, head_dim=8)
_WINDOW = dict(sliding_window=4)
# Larger than the usual deviation, so that routing and experts matter to the logits.
STD = 0.15

DENSE: dict[str, dict[str, Any]] = {
    "llama": dict(mlp_bias=True, attention_bias=True) | _GROUPED,
    "mistral": _GROUPED | _WINDOW,
    "qwen2": dict(num_key_value_heads=1),
    "qwen3": _GROUPED,
    "gemma": _GROUPED,
    "gemma2": _GROUPED | _WINDOW | dict(query_pre_attn_scalar=8),
    "gemma3_text": _GROUPED | _WINDOW | dict(query_pre_attn_scalar=8),
    "phi3": dict(num_key_value_heads=1),
    "gpt2": dict(n_inner=24),
    "gpt_neox": dict(use_parallel_residual=True),
    "opt": dict(ffn_dim=24, word_embed_proj_dim=16),
    "falcon": dict(new_decoder_architecture=True, num_kv_heads=1, ffn_hidden_size=24, bias=True),
    "stablelm": dict(num_key_value_heads=1),
    "smollm3": dict(num_key_value_heads=1),
}
# Not named in the request, with a row of their own or found by structure alone.
UNNAMED: dict[str, dict[str, Any]] = {
    "phi": {},
    "starcoder2": dict(num_key_value_heads=1),
    "gpt_neo": dict(num_layers=2, num_heads=2, attention_types=[[["global"], 2]]),
    "gptj": dict(n_inner=24, rotary_dim=8),
    "olmo2": {},
    "granite": dict(num_key_value_heads=1, residual_multiplier=0.5, embedding_multiplier=2.0),
}
SPARSE: dict[str, dict[str, Any]] = {
    "mixtral": dict(num_local_experts=4, num_experts_per_tok=2) | _GROUPED,
    "olmoe": dict(num_experts=4, num_experts_per_tok=2),
    "qwen2_moe": dict(
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=12,
        shared_expert_intermediate_size=12,
        num_key_value_heads=1,
    ),
    "qwen3_moe": dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, norm_topk_prob=True) | _GROUPED,
    "deepseek_v3": dict(
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=12,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        num_hidden_layers=3,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        num_key_value_heads=2,
    ),
    "gpt_oss": dict(num_local_experts=4, num_experts_per_tok=2) | _GROUPED | _WINDOW,
    "granitemoe": dict(num_local_experts=4, num_experts_per_tok=2, num_key_value_heads=1),
}


@cache
def _made(model_type: str) -> PreTrainedModel:
    changes = (DENSE | UNNAMED | SPARSE)[model_type]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(_SMALL | changes))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.normal_(std=STD)
    model.tie_weights()
    return model


def family_model(model_type: str) -> PreTrainedModel:
    """A tiny model of a family, evaluation mode, the same in every call; biases and gates are not zero."""
    return _made(model_type)


def ids_of(b: int = 2, s: int = 12, seed: int = 0) -> torch.Tensor:
    """Ids from 3 on: none of the special tokens."""
    return torch.randint(3, VOCABULARY, (b, s), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """Logits of the usual ids, [B, S, V]."""
    return model(input_ids=ids_of(), use_cache=False).logits


def reloaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model as somebody else gets it: saved, then loaded by its Auto class."""
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def same_model(loaded: PreTrainedModel, model: PreTrainedModel) -> bool:
    """Whether two models have the same tensors bit for bit, and the same logits.

    Kernels on the CPU sum in another order when weights lie at another address, hence the tolerance of the logits.
    """
    one, other = loaded.state_dict(), model.state_dict()
    equal = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return equal and bool((logits_of(loaded) - logits_of(model)).abs().max() < 2e-6)


def settle(model: PreTrainedModel) -> PreTrainedModel:
    """The model in evaluation mode with running averages begun; it is causal from then on."""
    model.train()
    for step in range(2):
        model.set_step(step)
        with torch.enable_grad():
            model(input_ids=ids_of(4, 16, step), labels=ids_of(4, 16, step)).loss.backward()
        model.after_optimizer_step(1.0)
    model.zero_grad()
    return model.eval()
