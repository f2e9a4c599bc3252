"""A tiny random model of every sparse decoder family of the installed transformers, and what their routers compute.

Shapes: M tokens of a pass, E experts, C classes of a router, K experts per token.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

VOCABULARY, E = 61, 4
# Every configuration takes what it does not know; each family reads its own names.
COMMON: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=24,
    moe_intermediate_size=12,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
    num_experts=E,
    num_local_experts=E,
    n_routed_experts=E,
    num_experts_per_tok=2,
    first_k_dense_replace=0,
    n_group=2,
    topk_group=1,
    n_shared_experts=1,
    num_shared_experts=1,
    shared_expert_intermediate_size=12,
    sliding_window=8,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_rope_head_dim=4,
    qk_nope_head_dim=4,
    v_head_dim=8,
)
_LATENT = dict(head_dim=4)
_MIXED = dict(layer_types=["linear_attention", "full_attention"])
_SPARSE = dict(mlp_layer_types=["sparse", "sparse"])
_DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8)
_SEQ2SEQ = dict(d_model=16, d_kv=8, d_ff=24, num_heads=2)
# What makes scores of the logits, as each family's paper or code says, and what it needs beside COMMON.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "afmoe": ("sigmoid", dict(num_dense_layers=1)),
    "aria_text": ("softmax", dict(moe_num_experts=E, moe_topk=2, moe_num_shared_experts=1)),
    "axk1": ("sigmoid", _LATENT),
    "axk2": ("sigmoid", dict(n_group=None, topk_group=None)),
    "bailing_hybrid": ("sigmoid", _LATENT | _MIXED | _SPARSE | dict(num_expert_group=2, num_experts_per_token=2)),
    "beam": ("sigmoid", _SPARSE),
    "cohere2_moe": ("sigmoid", dict(expert_selection_fn="sigmoid")),
    "dbrx": (
        "softmax",
        dict(
            d_model=16,
            n_heads=2,
            n_layers=2,
            max_seq_len=64,
            attn_config=dict(kv_n_heads=1, rope_theta=10000.0, clip_qkv=8.0),
            ffn_config=dict(hidden_size=16, ffn_hidden_size=12, moe_num_experts=E, moe_top_k=2),
        ),
    ),
    "deepseek_v2": ("softmax", dict(topk_method="group_limited_greedy")),
    "deepseek_v3": ("sigmoid", _LATENT),
    "deepseek_v32": ("sigmoid", {}),
    "deepseek_v4": ("sqrtsoftplus", dict(mlp_layer_types=["hash_moe", "moe"])),
    "dots1": ("sigmoid", {}),
    "dots3_note_text": ("sigmoid", {}),
    "ernie4_5_moe": ("softmax", {}),
    "exaone_moe": ("sigmoid", {}),
    "flex_olmo": ("softmax", {}),
    "flint": ("sigmoid", dict(mlp_only_layers=[])),
    "gemma4_text": (
        "softmax",
        dict(enable_moe_block=True, top_k_experts=2, hidden_size_per_layer_input=0, num_kv_shared_layers=0),
    ),
    "glm4_moe": ("sigmoid", {}),
    "glm4_moe_lite": ("sigmoid", {}),
    "glm_moe_dsa": ("sigmoid", {}),
    "gpt_oss": ("softmax", {}),
    "granitemoe": ("softmax", {}),
    "granitemoe_swa": ("softmax", {}),
    "granitemoehybrid": (
        "softmax",
        dict(mamba_n_heads=2, layer_types=["attention", "attention"], shared_intermediate_size=12),
    ),
    "granitemoeshared": ("softmax", {}),
    "hunyuan_v1_moe": ("softmax", dict(moe_topk=2)),
    "hy_v3": ("sigmoid", {}),
    "hy_v4": ("sigmoid", {}),
    "inkling2_text": ("sigmoid", {}),
    "inkling_text": ("sigmoid", {}),
    "jamba": ("softmax", dict(attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False, mamba_dt_rank=4)),
    "jetmoe": ("softmax", dict(kv_channels=8)),
    "kimi_linear": ("sigmoid", _LATENT | _MIXED | _SPARSE | dict(num_experts_per_token=2)),
    "kolibri1": ("sigmoid", {}),
    "laguna": ("sigmoid", {}),
    "lfm2_moe": ("sigmoid", dict(num_dense_layers=0, layer_types=["conv", "full_attention"])),
    "llama4_text": ("sigmoid", dict(intermediate_size_mlp=24)),
    "longcat_flash": (
        "softmax",
        _LATENT
        | dict(
            num_layers=1,
            moe_topk=2,
            zero_expert_num=1,
            n_routed_experts=E - 1,
            expert_ffn_hidden_size=12,
            ffn_hidden_size=24,
        ),
    ),
    "mellum": ("softmax", {}),
    "mimo_v2_flash": ("sigmoid", dict(num_key_value_heads=1)),
    "minimax": ("softmax", {}),
    "minimax_m2": ("sigmoid", {}),
    "minimax_m3_vl_text": ("sigmoid", {}),
    "mixtral": ("softmax", {}),
    "nemotron_h": ("sigmoid", dict(layers_block_type=["moe", "full_attention"], num_hidden_layers=2)),
    "olmoe": ("softmax", {}),
    "phimoe": ("softmax", {}),
    "qwen2_moe": ("softmax", {}),
    "qwen3_5_moe_text": ("softmax", _MIXED | _DELTA),
    "qwen3_moe": ("softmax", {}),
    "qwen3_next": ("softmax", _MIXED | _DELTA),
    "qwen4_exp_text": (
        "softmax",
        _MIXED
        | _DELTA
        | dict(
            indexer_n_heads=2,
            indexer_kv_heads=1,
            indexer_head_dim=8,
            indexer_budget=16,
            indexer_compress_ratio=4,
            hc_count=2,
            hc_lowrank=4,
        ),
    ),
    "solar_open": ("sigmoid", {}),
    "zaya": ("softmax", dict(num_experts_per_tok=1, router_hidden_size=8)),
}
ENCODERS_TOO: dict[str, dict[str, Any]] = {
    "switch_transformers": _SEQ2SEQ | dict(num_layers=2, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1),
    "nllb-moe": dict(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_sparse_step=1,
        decoder_sparse_step=1,
    ),
}
UNREADABLE: dict[str, dict[str, Any]] = {"doge": dict(is_moe=True, num_experts=16)}


def sparse_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """A tiny model in evaluation mode whose routers have opinions, and biases and factors that are not idle."""
    own = DECODERS[model_type][1] if model_type in DECODERS else (ENCODERS_TOO | UNREADABLE)[model_type]
    config = AutoConfig.for_model(model_type, **(COMMON | own | changes))
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "bias" in name and tensor.shape[-1:] in ((E,), (E + 1,)):
                tensor.normal_(std=0.1)
            elif "per_expert_scale" in name:
                tensor.uniform_(0.5, 1.5)
            elif "tid2eid" in name:
                tensor.copy_(torch.rand(len(tensor), E).argsort(1)[:, : tensor.shape[1]])
            elif tensor.requires_grad and tensor.ndim > 1 and "norm" not in name:
                tensor.normal_(std=0.3)
    return model
