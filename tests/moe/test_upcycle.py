"""Upcycled dense models compute the dense model's function, whatever their family; what is not understood is refused.

Letters: B sequences, S tokens each, E experts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_cases import DENSE, UNNAMED, family_model, ids_of, logits_of, reloaded, same_model
from moe_cases import settings_of, train_pass
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, MambaConfig, MambaForCausalLM

from spectra_exp.config.schema import OptimConfig
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe import families
from spectra_exp.moe.accounting import model_size
from spectra_exp.moe.families import GATED, Layout, Site, dense_sites
from spectra_exp.moe.layer import MoeLayer
from spectra_exp.moe.source import load_source, source_config, source_fingerprint
from spectra_exp.moe.upcycle import upcycle
from spectra_exp.training.optimizers import family, parameter_groups

DUAL = dict(sinkhorn_inference="dual", potentials="hard", training="potentials")
each_family = pytest.mark.parametrize("model_type", [*DENSE, *UNNAMED])


def upcycled(model_type: str, router: str = "switch", noise: float = 0.0, **settings):
    osr = DUAL if router == "spectra" else None
    return upcycle(family_model(model_type), settings_of(router, osr=osr, **settings), 0, noise).eval()


@each_family
@pytest.mark.parametrize("num_shared", [0, 2])
def test_upcycled_model_computes_the_source_s_function(model_type, num_shared):
    source, model = family_model(model_type), upcycled(model_type, num_shared=num_shared)
    assert len(model.routed_layers) == 2
    expected, found = logits_of(source), logits_of(model)
    assert (found - expected).abs().max() < 1e-5
    # Random weights large enough that the MLPs matter: without them the logits are others.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts.down" in name or ".shared.down" in name:
                parameter.zero_()
    assert (logits_of(model) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("router", ["spectra", "hash", "loss_free", "random"])
@pytest.mark.parametrize("top_k", [2, 3])
def test_the_invariant_holds_under_any_router_in_training_too(router, top_k):
    model = upcycled("llama", router, top_k=top_k, num_shared=1)
    found = model.train()(input_ids=ids_of(), labels=ids_of()).logits
    assert (found.detach() - logits_of(family_model("llama"))).abs().max() < 1e-5


def test_noise_makes_experts_differ_by_its_share_and_leaves_shared_ones():
    plain, model = upcycled("phi3", num_shared=1), upcycled("phi3", noise=0.01, num_shared=1)
    for before, after in zip(plain.routed_layers, model.routed_layers, strict=True):
        for name in ("up", "gate", "down"):
            change = getattr(after.experts, name) - getattr(before.experts, name)
            share = change.flatten(1).std(dim=1) / getattr(before.experts, name)[0].std()
            assert ((share > 0.008) & (share < 0.012)).all()
            assert torch.equal(getattr(after.shared, name), getattr(before.shared, name))
        assert not torch.equal(change[0], change[1])
    same_seed = upcycled("phi3", "spectra", noise=0.01)
    assert torch.equal(same_seed.routed_layers[0].experts.up, model.routed_layers[0].experts.up)


def test_first_layers_keep_their_mlp_and_a_dense_router_keeps_all():
    model = upcycled("gpt2", first_dense=1)
    assert [type(block.mlp).__name__ for block in model.backbone.transformer.h] == ["GPT2MLP", "MoeLayer"]
    assert (logits_of(model) - logits_of(family_model("gpt2"))).abs().max() < 1e-5
    dense = upcycled("gpt2", "dense")
    assert not dense.routed_layers and torch.equal(logits_of(dense), logits_of(family_model("gpt2")))


@each_family
def test_saved_and_loaded_logits_are_identical(model_type, tmp_path):
    model = upcycled(model_type, "spectra", noise=0.3, num_shared=1).train()
    train_pass(model, ids_of(4, 16))
    loaded = reloaded(model.eval(), tmp_path)
    assert same_model(loaded, model)
    frozen = [name for name, p in loaded.named_parameters() if not p.requires_grad]
    assert frozen and all(".shared." in name for name in frozen)


def test_training_moves_routers_and_experts_and_no_shared_one():
    model = upcycled("falcon", "spectra", noise=0.1, num_shared=1).train()
    train_pass(model, ids_of(4, 16))
    named = dict(model.named_parameters())
    assert all(named[n].grad is None for n in named if ".shared." in n)
    for part in ("router", "experts"):
        grads = [p.grad for n, p in named.items() if family(n) == part and p.grad is not None]
        assert grads and any(g.abs().max() > 0 for g in grads)


def test_biases_of_stacked_experts_decay_no_more_than_others():
    model = upcycled("opt")
    for optim in (OptimConfig(), OptimConfig(name="muon")):
        for group in parameter_groups(model, optim):
            biases = [n for n in group["names"] if n.endswith("bias")]
            assert not biases or (group["kind"] == "adamw" and group["weight_decay"] == 0.0)


@pytest.mark.parametrize(("model_type", "num_shared"), [("gpt2", 0), ("llama", 1)])
def test_flops_are_those_that_torch_counts(model_type, num_shared):
    model, ids = upcycled(model_type, "hash", num_shared=num_shared), ids_of(1, 32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, use_cache=False)
    config = model.config.backbone
    # The counter knows no causal mask: it counts the whole square of attention.
    whole_attention = 4.0 * 32 * config.num_hidden_layers * config.hidden_size
    counted = counter.get_total_flops() / ids.numel() - whole_attention / 2
    assert model_size(model, 32).flops_per_token == pytest.approx(counted, rel=0.02)


def idefics3(tied: bool = False) -> Idefics3ForConditionalGeneration:
    """A tiny model that also sees, whose text part is a Llama."""
    text = dict(
        model_type="llama",
        vocab_size=61,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8)
    torch.manual_seed(0)
    own = dict(image_token_id=60, pad_token_id=0, tie_word_embeddings=tied)
    return Idefics3ForConditionalGeneration(Idefics3Config(text_config=text, vision_config=vision, **own)).eval()


def test_text_part_of_a_model_that_sees(tmp_path):
    whole = idefics3()
    whole.save_pretrained(tmp_path)
    assert source_config(tmp_path).model_type == "llama"
    source = load_source(tmp_path)
    with torch.no_grad():
        expected = whole(input_ids=ids_of() % 59, use_cache=False).logits
    assert torch.equal(source(input_ids=ids_of() % 59, use_cache=False).logits, expected)
    model = upcycle(source, settings_of("switch", num_shared=1), 0, 0.0).eval()
    assert (model(input_ids=ids_of() % 59, use_cache=False).logits - expected).abs().max() < 1e-5


def test_a_wrong_row_is_found_out(monkeypatch):
    swapped = Layout(gate="up_proj", up="gate_proj", down="down_proj")
    monkeypatch.setitem(families.DENSE_FAMILIES, "qwen2", swapped)
    with pytest.raises(ConfigError, match="'qwen2' is not the function of its parts.*correct its row"):
        upcycled("qwen2")
    ungated = Layout(up="up_proj", down="down_proj")
    monkeypatch.setitem(families.DENSE_FAMILIES, "qwen2", ungated)
    with pytest.raises(ConfigError):
        upcycled("qwen2")


def test_a_lost_bias_is_found_out(monkeypatch):
    weights = Site.weights
    lossy = lambda self: {n: w for n, w in weights(self).items() if n != "up_bias"}  # noqa: E731
    monkeypatch.setattr(Site, "weights", lossy)
    with pytest.raises(ConfigError, match="is not the function of its parts"):
        upcycled("gpt_neox")


def test_a_combination_without_its_divisor_breaks_the_invariant(monkeypatch):
    monkeypatch.setattr(MoeLayer, "_shared_output", lambda self, shared, tokens: 0 * tokens)
    model = upcycled("llama", num_shared=1)
    assert (logits_of(model) - logits_of(family_model("llama"))).abs().max() > 1e-3


def test_unknown_families_are_told_what_was_looked_for():
    mamba = MambaForCausalLM(MambaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=2, state_size=4))
    with pytest.raises(ConfigError, match=r"'mamba' \(looked for mlp.gate_proj\+up_proj.*add a row 'mamba'") as error:
        dense_sites(mamba)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="sparse model already; give model=reroute"):
        dense_sites(family_model("mixtral"))


def test_a_family_without_a_row_is_found_by_structure():
    assert not {"olmo2", "granite"} & set(families.DENSE_FAMILIES)
    assert [site.layout for site in dense_sites(family_model("granite"))] == [GATED, GATED]


def test_fingerprint_is_of_the_content(tmp_path):
    one, other = tmp_path / "a", tmp_path / "b"
    family_model("llama").save_pretrained(one)
    family_model("llama").save_pretrained(other)
    assert source_fingerprint(one) == source_fingerprint(other)
    weights = Path(other / "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert source_fingerprint(one) != source_fingerprint(other)
