"""A tiny random model of every sparse decoder family of the installed transformers, and what their routers compute.

Shapes: M tokens of a pass, E experts, C classes of a router, K experts per token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

VOCABULARY, E = 61, 4
# Every configuration takes what it does not know; each family reads its own names.
COMMON: dict[str, Any] = dict(
    vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    intermediate_size=24, moe_intermediate_size=12, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
    eos_token_id=2, tie_word_embeddings=False, num_experts=E, num_local_experts=E, n_routed_experts=E,
    num_experts_per_tok=2, first_k_dense_replace=0, n_group=1, topk_group=1, n_shared_experts=1, num_shared_experts=1,
    shared_expert_intermediate_size=12, sliding_window=8, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
    qk_nope_head_dim=4, v_head_dim=8,
)  # fmt: skip
_MLA = dict(head_dim=4)
_MIXED = dict(layer_types=["linear_attention", "full_attention"])
OWN: dict[str, dict[str, Any]] = {
    "afmoe": dict(num_dense_layers=1),
    "aria_text": dict(moe_num_experts=E, moe_topk=2, moe_num_shared_experts=1),
    "axk1": _MLA,
    "axk2": dict(n_group=None),
    "bailing_hybrid": _MLA | _MIXED | dict(num_expert_group=2, mlp_layer_types=["sparse"] * 2),
    "beam": dict(mlp_layer_types=["sparse"] * 2),
    "cohere2_moe": dict(expert_selection_fn="sigmoid"),
    "dbrx": dict(
        d_model=16, n_heads=2, n_layers=2, max_seq_len=64, attn_config=dict(kv_n_heads=1),
        ffn_config=dict(hidden_size=16, ffn_hidden_size=12, moe_num_experts=E, moe_top_k=2),
    ),
    "deepseek_v2": dict(topk_method="group_limited_greedy"),
    "deepseek_v3": _MLA,
    "deepseek_v4": dict(mlp_layer_types=["hash_moe", "moe"]),
    "flint": dict(mlp_only_layers=[]),
    "gemma4_text": dict(enable_moe_block=True, top_k_experts=2, hidden_size_per_layer_input=0, num_kv_shared_layers=0),
    "granitemoehybrid": dict(mamba_n_heads=2, layer_types=["attention", "attention"], shared_intermediate_size=12),
    "hunyuan_v1_moe": dict(moe_topk=2),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False, mamba_dt_rank=4),
    "jetmoe": dict(kv_channels=8),
    "kimi_linear": _MLA | _MIXED | dict(num_experts_per_token=2, mlp_layer_types=["sparse"] * 2),
    "lfm2_moe": dict(num_dense_layers=0, layer_types=["conv", "full_attention"]),
    "llama4_text": dict(intermediate_size_mlp=24),
    "longcat_flash": _MLA | dict(
        num_layers=1, moe_topk=2, zero_expert_num=1, expert_ffn_hidden_size=12, ffn_hidden_size=24, n_routed_experts=E - 1
    ),
    "mimo_v2_flash": dict(swa_num_key_value_heads=2, swa_num_attention_heads=2, swa_head_dim=8, swa_v_head_dim=8),
    "nemotron_h": dict(layers_block_type=["moe", "full_attention"], num_hidden_layers=2),
    "qwen3_5_moe_text": _MIXED,
    "qwen3_next": _MIXED,
    "qwen4_exp_text": _MIXED,
    "zaya": dict(num_experts_per_tok=1, router_hidden_size=8),
    "switch_transformers": dict(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, num_sparse_encoder_layers=1,
                                num_sparse_decoder_layers=1),
    "nllb-moe": dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24, decoder_ffn_dim=24,
                     encoder_attention_heads=2, decoder_attention_heads=2, encoder_sparse_step=1, decoder_sparse_step=1),
}  # fmt: skip
SOFTMAX = (
    "aria_text dbrx deepseek_v2 ernie4_5_moe flex_olmo gemma4_text gpt_oss granitemoe granitemoe_swa granitemoehybrid "
    "granitemoeshared hunyuan_v1_moe jamba jetmoe longcat_flash mellum minimax mixtral olmoe phimoe qwen2_moe "
    "qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp_text zaya"
).split()
SIGMOID = (
    "afmoe axk1 axk2 bailing_hybrid beam cohere2_moe deepseek_v3 deepseek_v32 dots1 dots3_note_text exaone_moe flint "
    "glm4_moe glm4_moe_lite glm_moe_dsa hy_v3 hy_v4 inkling2_text inkling_text kimi_linear kolibri1 laguna lfm2_moe "
    "llama4_text mimo_v2_flash minimax_m2 minimax_m3_vl_text nemotron_h solar_open"
).split()
SQRT_SOFTPLUS = ["deepseek_v4"]
DECODERS = sorted(SOFTMAX + SIGMOID + SQRT_SOFTPLUS)


def sparse_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """A tiny model in evaluation mode whose routers have opinions, and biases and factors that are not idle."""
    config = AutoConfig.for_model(model_type, **(COMMON | OWN.get(model_type, {}) | changes))
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
