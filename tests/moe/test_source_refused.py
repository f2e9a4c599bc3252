"""Sources that neither upcycling nor rerouting can take are told so, honestly and before anything is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from family_cases import DENSE, SPARSE, UNNAMED, family_model, logits_of
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.schema import RerouteConfig, UpcycleConfig
from spectra_exp.moe.source import load_source, source_facts

SMALL = dict(
    vocab_size=61,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=24,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
GEMMA4 = dict(global_head_dim=8, vocab_size_per_layer_input=61, hidden_size_per_layer_input=0, num_kv_shared_layers=0)
GEMMA4_EXPERTS = dict(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=12)
GEMMA3N = dict(
    vocab_size_per_layer_input=61,
    hidden_size_per_layer_input=8,
    num_kv_shared_layers=0,
    laurel_rank=4,
    intermediate_size=[24, 24],
)
DBRX = dict(d_model=16, n_heads=2, n_layers=2, max_seq_len=64)


def described(folder: Path, model_type: str, **config: Any) -> str:
    """A folder whose config.json describes a model, with no weights in its file: nothing may ask for them."""
    AutoConfig.for_model(model_type, **(SMALL | config)).save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("model_type", "config", "upcycle", "reroute"),
    [
        ("doge", dict(is_moe=True, num_experts=16), "'doge' cannot be run as its parts", "no row for model_type"),
        ("doge", dict(is_moe=False), None, "'doge' is a dense model; give model=upcycle"),
        (
            "gemma4_text",
            GEMMA4 | GEMMA4_EXPERTS,
            "'gemma4_text' is a sparse model already; give another: model=reroute has no row",
            "no row for model_type",
        ),
        ("gemma4_text", GEMMA4, None, "'gemma4_text' is a dense model; give model=upcycle"),
        ("bitnet", {}, "'bitnet' is not the function of its parts", "no row for model_type 'bitnet'"),
        (
            "gemma3n_text",
            GEMMA3N | dict(activation_sparsity_pattern=[0.0, 0.95]),
            "'gemma3n_text' is not the function of its parts",
            "no row for model_type 'gemma3n_text'",
        ),
        (
            "gemma3n_text",
            GEMMA3N | dict(activation_sparsity_pattern=[0.0, 0.0], intermediate_size=[24, 48]),
            "differ in width or parts from layer to layer",
            "no row for model_type 'gemma3n_text'",
        ),
        (
            "aria_text",
            dict(moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
            "'aria_text' is a sparse model already; give another",
            "no row for model_type 'aria_text'",
        ),
        (
            "dbrx",
            DBRX | dict(attn_config=dict(rope_theta=1e4)),
            "'dbrx' is a sparse model already; give another",
            "no row for model_type 'dbrx'",
        ),
        # Its configuration cannot be built as it stands, whatever it is.
        ("dbrx", DBRX, "no model can be built from its config.json .*rope_theta", "no row for model_type 'dbrx'"),
        ("mixtral", dict(num_local_experts=4), "'mixtral' is a sparse model already; give model=reroute$", None),
        ("mamba", {}, "no MLPs were found in the layers of model_type 'mamba'", "no row for model_type 'mamba'"),
        ("olmo2", {}, None, "'olmo2' is a dense model; give model=upcycle"),
    ],
)
def test_each_command_says_what_the_other_can_do(model_type, config, upcycle, reroute, tmp_path):
    source = described(tmp_path, model_type, **config)
    for kind, message in ((UpcycleConfig, upcycle), (RerouteConfig, reroute)):
        if message is None:
            assert source_facts(kind(source=source)).model_type == model_type
            continue
        with pytest.raises(ConfigError, match=message) as error:
            source_facts(kind(source=source))
        assert "\n" not in str(error.value) and error.value.key == "model.source"


def test_a_layer_that_keeps_its_mlp_may_have_any(tmp_path):
    odd_first = GEMMA3N | dict(activation_sparsity_pattern=[0.95, 0.0], intermediate_size=[48, 24])
    source = described(tmp_path, "gemma3n_text", **odd_first)
    with pytest.raises(ConfigError):
        source_facts(UpcycleConfig(source=source))
    assert source_facts(UpcycleConfig(source=source, first_k_dense_replace=1)).num_layers == 2


@pytest.mark.parametrize("kind", [UpcycleConfig, RerouteConfig])
@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "compressed-tensors", "bitnet", None, "of its own"])
def test_quantised_weights_are_refused(method, kind, tmp_path):
    source = described(tmp_path, "llama" if kind is UpcycleConfig else "mixtral")
    file = tmp_path / "config.json"
    said = {"quant_method": method} if method else {"load_in_4bit": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": said}))
    with pytest.raises(ConfigError, match=rf"its weights are quantised \({method or 'bitsandbytes'}\); give the model"):
        source_facts(kind(source=source))


def test_weights_in_eight_bits_that_transformers_gives_whole_are_read(tmp_path):
    family_model("llama").save_pretrained(tmp_path)
    expected = logits_of(family_model("llama"))
    file, said = tmp_path / "model.safetensors", tmp_path / "config.json"
    tensors = load_file(file)
    for name in [n for n in tensors if n.endswith("proj.weight")]:
        scale = tensors[name].abs().max() / 448
        tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scale.view(1, 1)
    save_file(tensors, file, {"format": "pt"})
    quantised = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    said.write_text(json.dumps(json.loads(said.read_text()) | {"quantization_config": quantised}))
    assert source_facts(UpcycleConfig(source=str(tmp_path))).model_type == "llama"
    source = load_source(tmp_path)
    assert {p.dtype for p in source.parameters()} == {torch.float32}
    assert not hasattr(source.config, "quantization_config")
    assert 0 < (logits_of(source) - expected).abs().max() < 0.1


@pytest.mark.parametrize("model_type", [*DENSE, *UNNAMED, *SPARSE])
def test_every_known_family_passes_without_its_weights(model_type, tmp_path):
    config = family_model(model_type).config
    config.save_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    kind = RerouteConfig if model_type in SPARSE else UpcycleConfig
    assert source_facts(kind(source=str(tmp_path))).model_type == model_type
