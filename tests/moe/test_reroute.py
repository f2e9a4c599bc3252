"""Sparse Hugging Face models behind our routers: experts untouched, the same logits where the rule is the same.

Letters: B sequences, S tokens each, E experts, K experts per token.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from family_cases import SPARSE, family_model, ids_of, logits_of, reloaded, same_model, settle
from moe_cases import settings_of
from transformers import JambaConfig

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.interpret.open_run import OwnEngine
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.families import SPARSE_FAMILIES, down_projections, sparse_blocks, sparse_family
from spectra_exp.moe.reroute import reroute

KNOWN = [name for name in SPARSE if SPARSE_FAMILIES[name].softmax]
each_family = pytest.mark.parametrize("model_type", SPARSE)


def rerouted(model_type: str, router: str, keep: bool = True, renormalize: bool | None = None, **settings):
    top_k = family_model(model_type).config.num_experts_per_tok
    settings = settings_of(router, top_k=top_k, **settings)
    return reroute(family_model(model_type), settings, 0, renormalize, keep).eval()


def test_the_families_asked_for_are_known():
    assert set(KNOWN) == {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "granitemoe"}
    assert set(SPARSE) - set(KNOWN) == {"deepseek_v3", "gpt_oss"}


@each_family
def test_everything_but_the_router_stays_bit_for_bit(model_type):
    source, model = family_model(model_type), rerouted(model_type, "spectra")
    gate = sparse_family(source.config).gate
    ours = dict(model.backbone.named_parameters())
    others = {n: p for n, p in source.named_parameters() if f".{gate}." not in n}
    assert any("experts" in name for name in others)
    assert all(torch.equal(ours[name], parameter) for name, parameter in others.items())
    assert (logits_of(model) - logits_of(source)).abs().max() > 1e-2


@each_family
def test_an_analysis_reads_the_weights_of_the_source_s_experts(model_type):
    model = rerouted(model_type, "native")
    expected = down_projections(sparse_blocks(model.backbone)[0].experts).flatten(1).detach().numpy()
    assert np.array_equal(OwnEngine(model, None).weights_EF(0), expected)


@each_family
def test_native_router_gives_the_source_s_logits(model_type):
    assert torch.equal(logits_of(rerouted(model_type, "native")), logits_of(family_model(model_type)))


@pytest.mark.parametrize("model_type", KNOWN)
@pytest.mark.parametrize("router", ["switch", "temperature"])
def test_our_router_with_the_source_s_weights_gives_its_logits(model_type, router):
    expected = logits_of(family_model(model_type))
    assert (logits_of(rerouted(model_type, router)) - expected).abs().max() < 1e-5
    assert (logits_of(rerouted(model_type, router, keep=False)) - expected).abs().max() > 1e-2


def test_renormalisation_follows_the_source_unless_told():
    with_it, without = family_model("qwen3_moe"), family_model("olmoe")
    assert with_it.config.norm_topk_prob and not without.config.norm_topk_prob
    for model_type, flipped in (("qwen3_moe", False), ("olmoe", True)):
        other = rerouted(model_type, "switch", renormalize=flipped)
        assert (logits_of(other) - logits_of(family_model(model_type))).abs().max() > 1e-2


def test_scale_of_the_source_s_weights_is_kept():
    model = rerouted("deepseek_v3", "switch")
    context = RoutingContext()
    model(input_ids=ids_of(), routing=context, use_cache=False)
    scale = family_model("deepseek_v3").config.routed_scaling_factor
    assert scale != 1 and len(context.records) == 2
    for record in context.records.values():
        assert torch.allclose(record.weights_NE.sum(1), torch.tensor(scale))


@each_family
@pytest.mark.parametrize("router", ["native", "spectra"])
def test_saved_and_loaded_logits_are_identical(model_type, router, tmp_path):
    model = settle(rerouted(model_type, router))
    assert same_model(reloaded(model, tmp_path), model)


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss", "deepseek_v3"])
@torch.no_grad()
def test_padding_changes_nothing(model_type):
    model, ids = settle(rerouted(model_type, "spectra")), ids_of(1, 8)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = (padded > 0).long()
    context = RoutingContext()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    found = model(input_ids=padded, attention_mask=mask, position_ids=positions, routing=context, use_cache=False)
    assert (found.logits[:, 3:] - model(input_ids=ids, use_cache=False).logits).abs().max() < 1e-5
    assert all(len(record.chosen_NE) == 8 for record in context.records.values())


@pytest.mark.parametrize(("router", "rule"), [("switch", "quota"), ("expert_choice", "expert_choice")])
def test_selection_with_a_capacity_reaches_the_experts(router, rule):
    model = rerouted("mixtral", router, selection=dict(rule=rule, at_inference=True, capacity_factor=1.0))
    context = RoutingContext()
    logits = model(input_ids=ids_of(), routing=context, use_cache=False).logits
    chosen = torch.stack([record.chosen_NE for record in context.records.values()])
    # 24 tokens of 2 experts each over 4 experts.
    assert logits.isfinite().all() and int(chosen.sum(1).max()) == 12
    assert rule == "quota" or int(chosen.sum(2).max()) > 2


def test_mean_outputs_are_those_of_each_expert_alone():
    model, context, seen = rerouted("gpt_oss", "native"), RoutingContext(keep_outputs=True), []
    layer = model.routed_layers[0]
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=ids_of(), routing=context, use_cache=False)
        record = context.records[0]
        for expert in range(4):
            tokens = seen[0][record.chosen_NE[:, expert]]
            ones = torch.ones(len(tokens), 1)
            alone = layer.experts(tokens, torch.full((len(tokens), 1), expert), ones).sum(0)
            assert torch.allclose(record.output_sum_ED[expert], alone, atol=1e-5)


def test_a_gate_that_loses_its_order_is_found_out(monkeypatch):
    from spectra_exp.moe.gate import ReroutedGate

    forward = ReroutedGate.forward

    def shuffled(self, hidden):
        scores, weights, experts = forward(self, hidden)
        return scores, weights.flip(1), experts

    monkeypatch.setattr(ReroutedGate, "forward", shuffled)
    assert (logits_of(rerouted("mixtral", "switch")) - logits_of(family_model("mixtral"))).abs().max() > 1e-2


def test_what_is_no_known_sparse_model_is_refused():
    with pytest.raises(ConfigError, match="'llama' is a dense model; give model=upcycle"):
        sparse_blocks(family_model("llama"))
    with pytest.raises(ConfigError, match="no row for model_type 'jamba'.*add a row to SPARSE_FAMILIES"):
        sparse_family(JambaConfig(num_experts=4))


def of_one_expert(model_type: str, **config):
    source = copy.deepcopy(family_model(model_type))
    for module in source.modules():
        if hasattr(module, "top_k"):
            module.top_k = 1
    source.config.num_experts_per_tok = 1
    vars(source.config).update(config)
    return source


# Whether the source divides the one weight by itself: always, or as its configuration says.
@pytest.mark.parametrize(
    ("model_type", "divides"),
    [("mixtral", True), ("granitemoe", True), ("qwen3_moe", True), ("olmoe", False), ("qwen2_moe", False)],
)
def test_with_one_expert_the_source_s_rule_gives_its_logits_and_a_router_without_gradient_is_told(
    model_type, divides, caplog
):
    source = of_one_expert(model_type)
    expected = logits_of(source)
    for router in ("switch", "native"):
        caplog.clear()
        model = reroute(source, settings_of(router, top_k=1), 0, None, True).eval()
        assert (logits_of(model) - expected).abs().max() < 1e-5
        assert ("gives the router no gradient" in caplog.text) == divides
        model(input_ids=ids_of(), labels=ids_of()).lm_loss.backward()
        moved = max(float(p.grad.abs().max()) for n, p in model.named_parameters() if ".router." in n)
        assert moved < 1e-6 if divides else moved > 1e-5
    caplog.clear()
    undivided = reroute(source, settings_of("switch", top_k=1), 0, False, True).eval()
    assert "no gradient" not in caplog.text
    undivided(input_ids=ids_of(), labels=ids_of()).lm_loss.backward()
    assert all(p.grad.abs().max() > 1e-5 for n, p in undivided.named_parameters() if ".router." in n)
    assert ((logits_of(undivided) - expected).abs().max() > 1e-2) == divides


def test_a_saved_model_of_one_expert_keeps_the_source_s_rule(tmp_path):
    model = reroute(of_one_expert("mixtral"), settings_of("switch", top_k=1), 0, None, True).eval()
    assert same_model(reloaded(model, tmp_path), model)
