"""Stock Hugging Face MoE models: what is recorded is what their experts were called with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_subjects import DOMAINS, made_documents, made_tokenizer
from sparse_families import sparse_model
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DogeConfig,
    LlamaConfig,
    MixtralConfig,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.interpret.command import main
from spectra_exp.interpret.open_stock import StockEngine
from spectra_exp.interpret.opening import open_subject
from spectra_exp.interpret.registry import Request, parts
from spectra_exp.interpret.results import read_index

SHAPE = dict(
    vocab_size=400,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
ROUTED = dict(num_experts_per_tok=2, moe_intermediate_size=12, initializer_range=0.5)
FAMILIES: dict[str, PreTrainedConfig] = {
    "mixtral": MixtralConfig(**SHAPE, num_experts_per_tok=2, num_local_experts=4, initializer_range=0.5),
    "olmoe": OlmoeConfig(**SHAPE, num_experts_per_tok=2, num_experts=4, initializer_range=0.5),
    "qwen2_moe": Qwen2MoeConfig(**SHAPE, **ROUTED, num_experts=4, shared_expert_intermediate_size=12),
    "qwen3_moe": Qwen3MoeConfig(**SHAPE, **ROUTED, num_experts=4, head_dim=8),
}


def made_model(config: PreTrainedConfig):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def saved(config: PreTrainedConfig, folder: Path) -> Path:
    """The model with its tokenizer in a folder."""
    made_model(config).save_pretrained(folder)
    made_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def opened(path: Path, texts: str | None = None, tokens: int = 256):
    return open_subject("run", str(path), path.parent, tokens=tokens, texts=texts, seed=0, device=torch.device("cpu"))


def texts_file(folder: Path) -> str:
    import json

    path = folder / "texts.jsonl"
    lines = [json.dumps({"text": d.text, "domain": d.domain}) for d in made_documents(2)]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_routing_is_that_of_the_models_own_router(family: str) -> None:
    model = made_model(FAMILIES[family])
    ids = torch.randint(1, 400, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids, output_router_logits=True)
        made = StockEngine(model).forward(ids, torch.zeros_like(ids))
    assert torch.equal(made.logits_BSV, expected.logits) and len(made.records) == 2
    for record, logits in zip(made.records, expected.router_logits, strict=True):
        best = logits.topk(2, dim=1).indices
        assert torch.equal(record.chosen_NE, torch.zeros(60, 4, dtype=torch.bool).scatter_(1, best, True))
        assert torch.allclose(record.probs_NE, logits.float().softmax(1), atol=1e-6)
        # Only Mixtral and Qwen3's option renormalise; in all of them the weights are those of the softmax.
        chosen = record.probs_NE * record.chosen_NE
        assert torch.allclose(
            record.weights_NE / record.weights_NE.sum(1, keepdim=True), chosen / chosen.sum(1, keepdim=True), atol=1e-5
        )


def test_mean_outputs_are_those_of_the_expert_alone() -> None:
    model = made_model(FAMILIES["olmoe"])
    ids = torch.randint(1, 400, (2, 16), generator=torch.Generator().manual_seed(1))
    record = StockEngine(model).forward(ids, torch.zeros_like(ids)).records[1]
    experts = model.model.layers[1].mlp.experts
    for expert in range(4):
        rows = record.hidden_Nd[record.chosen_NE[:, expert]]
        gate, up = (rows @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
        out = (torch.nn.functional.silu(gate) * up) @ experts.down_proj[expert].T
        assert torch.allclose(record.output_sum_ED[expert], out.sum(0), atol=1e-4)


def test_experts_executed_against_the_routers_word_are_what_is_recorded() -> None:
    """A router that says one thing and executes another: the record follows the execution, without a distribution."""
    model = made_model(FAMILIES["mixtral"])
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda module, given, made: (made[0], made[1], (made[2] + 1) % 4))
    ids = torch.randint(1, 400, (2, 16), generator=torch.Generator().manual_seed(1))
    seen = []
    model.model.layers[0].mlp.experts.register_forward_pre_hook(lambda module, given: seen.append(given[1].clone()))
    record = StockEngine(model).forward(ids, torch.zeros_like(ids)).records[0]
    assert torch.equal(record.chosen_NE, torch.zeros(32, 4, dtype=torch.bool).scatter_(1, seen[0], True))
    assert record.probs_NE is None


def test_a_grouped_router_with_dense_first_layers_opens(tmp_path: Path) -> None:
    config = DeepseekV3Config(
        **SHAPE,
        moe_intermediate_size=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
    )
    subject = opened(saved(config, tmp_path / "deepseek"))
    assert (subject.num_layers, subject.num_experts, subject.top_k) == (1, 4, 2)
    assert (subject.trace.experts_NLK >= 0).all()


def test_a_folder_is_analysed_on_the_texts_given_or_on_the_embedded_ones(tmp_path: Path) -> None:
    path = saved(FAMILIES["qwen3_moe"], tmp_path / "qwen")
    subject = opened(path, texts_file(tmp_path))
    assert subject.domains == DOMAINS and subject.run is None and subject.held_out.num_tokens == 256
    found = {name: parts()[name].run(Request(subject)).empty for name in ("load", "affinity", "neighbours")}
    assert set(found.values()) == {None}
    assert "arithmetic" in opened(path).domains


def test_a_text_of_one_token_and_a_dense_model_are_empty_and_labelled(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a")
    path = saved(FAMILIES["olmoe"], tmp_path / "olmoe")
    request = Request(opened(path, str(tmp_path / "one.txt")))
    assert request.subject.held_out.num_tokens == 2
    reasons = {name: part.run(request).empty for name, part in parts().items()}
    assert "domain labels" in reasons["affinity"] and "occurs" in reasons["keywords"]
    assert reasons["load"] is None
    dense = opened(saved(LlamaConfig(**SHAPE), tmp_path / "llama"))
    assert dense.num_layers == 0 and np.isfinite(dense.trace.losses_N[1:]).any()
    assert "dense" in parts()["load"].run(Request(dense)).empty


def test_a_sparse_model_that_cannot_be_read_is_an_error_and_no_dense_one(tmp_path: Path, capsys) -> None:
    config = DogeConfig(**SHAPE, is_moe=True, num_experts=16, num_experts_per_tok=2)
    path = saved(config, tmp_path / "doge")
    assert main([f"run={path}", "parts=load", "tokens=64"]) == 1
    assert "is a sparse model whose blocks cannot be read" in capsys.readouterr().err


def test_a_model_that_transformers_cannot_run_is_one_line(tmp_path: Path, capsys, monkeypatch) -> None:
    def forward(*given, **named):
        raise RuntimeError("The size of tensor a (4) must match\nthe size of tensor b (8)")

    monkeypatch.setattr(OlmoeForCausalLM, "forward", forward)
    assert main([f"run={saved(FAMILIES['olmoe'], tmp_path / 'olmoe')}", "parts=load", "tokens=64"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"^error: run: .*cannot run it \(The size of tensor a \(4\) must match\)$", said, re.M)


@pytest.mark.parametrize("model_type", ["zaya", "jetmoe", "longcat_flash"])
def test_every_part_copes_with_families_that_differ(model_type: str, tmp_path: Path) -> None:
    """A router that may choose none, experts that cannot run by themselves, and some that do nothing."""
    model = sparse_model(model_type, vocab_size=400, bos_token_id=0, eos_token_id=0)
    model.save_pretrained(tmp_path / "model")
    made_tokenizer().save(str(tmp_path / "model/tokenizer.json"))
    request = Request(opened(tmp_path / "model", texts_file(tmp_path)))
    for part in parts().values():
        part.run(request)
    assert request.subject.trace.entropies_NL.shape == (256, request.subject.num_layers)


def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = saved(FAMILIES["olmoe"], tmp_path / "olmoe")
    (path / "tokenizer.json").rename(path / "elsewhere.json")
    with pytest.raises(ConfigError, match="has no tokenizer.json; save"):
        opened(path)
    (path / "elsewhere.json").rename(path / "tokenizer.json")
    (path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no .*safetensors"):
        opened(path)
    (path / "config.json").write_text('{"model_type": "no_such"}')
    with pytest.raises(ConfigError, match="is not a causal language model that transformers loads"):
        opened(path)


def test_a_pickled_checkpoint_is_not_read(tmp_path: Path) -> None:
    path = saved(FAMILIES["olmoe"], tmp_path / "olmoe")
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickled weights are not loaded"):
        opened(path)


def test_two_models_of_one_folder_name_are_told_apart(tmp_path: Path, capsys) -> None:
    saved(FAMILIES["olmoe"], tmp_path / "a/final")
    for parent in ("b", "c/b"):
        shutil.copytree(tmp_path / "a/final", tmp_path / parent / "final")
    folders = [tmp_path / parent / "final" for parent in ("a", "b", "c/b")]
    pages = []
    # The first save of a process imports DeepSpeed where there is one, and that writes to standard output.
    capsys.readouterr()
    for other in folders[1:]:
        assert main([f"run={folders[0]}", f"against={other}", "parts=cases", "text=zebra", "tokens=64"]) == 0
        pages.append(Path(capsys.readouterr().out.strip()))
    assert pages[0].parent != pages[1].parent and all(page.is_file() for page in pages)
    index = read_index(pages[0].parent)
    sides = index["subject"], index["against"]
    assert [side["name"] for side in sides] == ["a-final", "b-final"] and sides[0]["label"] != sides[1]["label"]
    assert [side["typed"] for side in sides] == [str(folder) for folder in folders[:2]]
    assert set(pd.read_csv(pages[0].parent / "cases/tokens.csv")["name"]) == {"a-final", "b-final"}
    assert main([f"run={folders[0]}", f"against={folders[0]}/../final", "parts=load"]) == 2
    assert "error: against: is the run itself" in capsys.readouterr().err


def test_other_weights_under_the_same_names_are_another_model(tmp_path: Path) -> None:
    path = saved(FAMILIES["olmoe"], tmp_path / "olmoe")
    texts = texts_file(tmp_path)
    first = opened(path, texts).fingerprint
    assert opened(path, texts).fingerprint == first
    model = made_model(FAMILIES["olmoe"])
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    model.save_pretrained(path)
    assert opened(path, texts).fingerprint != first
