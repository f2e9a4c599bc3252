"""Empty experts, trained shared ones, and experts widened to another model's size, each with its wrong version.

Letters: N real tokens, E experts, K experts per token.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from moe_cases import VOCABULARY, backbone_of, ids_of, logits_of, model_of, settings_of, settled, train_pass

from spectra_exp.measure.accumulate import EvaluationAccumulator
from spectra_exp.measure.causality import measure_causality
from spectra_exp.measure.compute import compute_metrics
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.accounting import model_size, number_varies
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.model import SpectraMoeForCausalLM, new_model
from spectra_exp.moe.widen import widened
from spectra_exp.routing.losses import load_balance_of_counts
from spectra_exp.training.optimizers import named_families

NULL = dict(name="switch", num_experts=6, num_null=2, top_k=3)
EXPERT = 3 * 8 * 16


def routed(model, ids) -> list:
    context = RoutingContext(keep_outputs=True)
    with torch.no_grad():
        model(input_ids=ids, use_cache=False, routing=context)
    return [context.records[layer.layer] for layer in model.routed_layers]


def measured(model, ids) -> dict[str, float]:
    n, zeros = ids.numel(), torch.zeros(ids.numel(), dtype=torch.long)
    accumulator = EvaluationAccumulator(2, model.settings.num_real, model.settings.top_k, VOCABULARY, 1, 1)
    accumulator.update(routed(model, ids), TokenBatch(ids.flatten(), zeros, zeros, zeros))
    assert accumulator.num_tokens == n
    return compute_metrics(accumulator.statistics()).all()


# Empty experts


@pytest.mark.parametrize("kind", ["zero", "copy"])
def test_an_empty_expert_gives_zero_or_a_copy(kind):
    model = settled(model_of(**NULL, null_kind=kind))
    layer, hidden_BSd = model.routed_layers[0], torch.randn(2, 5, 16)
    with torch.no_grad(), layer.holder.evaluation(RoutingContext()) as context:
        _, _, chosen_NE, weights_NE = layer.route(hidden_BSd, context)
        output = layer(hidden_BSd).flatten(0, 1)
        tokens_Nd = hidden_BSd.flatten(0, 1)
        expected = layer.experts(tokens_Nd, chosen_NE[:, :4], weights_NE[:, :4])[0]
    assert chosen_NE[:, 4:].any() and (chosen_NE.sum(1) == 3).all()
    if kind == "copy":
        expected = expected + weights_NE[:, 4:].sum(1, keepdim=True) * tokens_Nd
    torch.testing.assert_close(output, expected)


def test_k_counts_empty_experts_and_every_other_figure_leaves_them_out():
    model, ids = settled(model_of(**NULL)), ids_of(4, 16)
    found = measured(model, ids)
    assert 0 < found["null_rate"] < 1
    assert found["executed_k"] == pytest.approx(3 * (1 - found["null_rate"]))
    assert found["effective_experts"] <= 4 and 0 <= found["routing_entropy_norm"] <= 1
    # The wrong version counts empty experts as executed: K whatever they take.
    assert abs(found["executed_k"] - 3) > 0.05
    records = routed(model, ids)
    assert all(r.chosen_NE.shape == r.weights_NE.shape == r.probs_NE.shape == (64, 4) for r in records)
    torch.testing.assert_close(records[0].probs_NE.sum(1), torch.ones(64))
    assert number_varies(model) and "null_rate" not in measured(settled(model_of("switch")), ids)


def test_a_token_of_empty_experts_alone_is_no_expert_s():
    model = settled(model_of(**NULL | dict(num_null=4)))
    found = measured(model, ids_of(4, 16))
    assert found["no_expert_rate"] == found["dropped_rate"] >= 0
    assert found["executed_k"] <= 2


def test_flops_and_parameters_leave_empty_experts_out():
    """The wrong version takes K of E."""
    model, plain = model_of(**NULL), model_of("switch", num_experts=4)
    router = 2 * 2 * 16
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters()) + router
    size, other = model_size(model, 32, executed_k=2.0), model_size(plain, 32)
    assert size.active - router == other.active
    assert size.flops_per_token - 2 * router == other.flops_per_token
    assert model_size(model, 32, executed_k=3.0).active == size.active + 2 * EXPERT


def test_balancers_see_every_choice(monkeypatch):
    """The loss's loads are of all E, so that an even one leaves empty experts their share and no more."""
    counts = []
    monkeypatch.setattr(
        "spectra_exp.moe.layer.load_balance_of_counts",
        lambda probs_NE, counts_E: counts.append(counts_E) or load_balance_of_counts(probs_NE, counts_E),
    )
    train_pass(model_of(**NULL), ids_of(2, 8))
    assert all(len(counts_E) == 6 and counts_E.sum() == 3 * 16 for counts_E in counts)
    model = model_of(**NULL | dict(name="loss_free"))
    train_pass(model, ids_of(2, 8))
    assert model.routed_layers[0].router.bias_E.shape == (6,)


@pytest.mark.parametrize("settings", [NULL, NULL | dict(null_kind="copy"), dict(name="switch", num_shared=1)], ids=str)
def test_causal_saved_and_the_same_under_checkpointing(settings, tmp_path):
    model = settled(model_of(backbone=backbone_of(tie_word_embeddings=False), **settings))
    assert measure_causality(logits_of(model), ids_of(3, 12), VOCABULARY).causal
    model.save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path)
    assert {n for n, p in loaded.named_parameters() if not p.requires_grad} == set()
    again = loaded.train()
    again.activation_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(train_pass(model.train(), ids_of(), 3), train_pass(again, ids_of(), 3))


# Shared experts


def test_a_shared_expert_is_added_and_trained():
    """The wrong versions: averaged in, or frozen, as the copies of an upcycled model are."""
    model = model_of("switch", num_shared=1)
    layer, hidden_BSd = model.routed_layers[0], torch.randn(2, 5, 16)
    with torch.no_grad():
        whole = layer(hidden_BSd)
        shared, layer.shared = layer.shared, None
        routed_BSd = layer(hidden_BSd)
        layer.shared = shared
        added = layer._shared_output(shared, hidden_BSd.flatten(0, 1)).view_as(whole)
    torch.testing.assert_close(whole, routed_BSd + added)
    assert not torch.allclose(whole, (routed_BSd + added) / 2, atol=1e-6)
    train_pass(model, ids_of())
    assert all(p.grad.any() for p in layer.shared.parameters())
    names = [name for name, _ in named_families(model)["experts"]]
    assert any(".shared." in name for name in names)


def test_shared_and_fine_experts_leave_active_parameters_as_they_are():
    plain = model_size(model_of("switch", num_experts=8, top_k=2), 32)
    shared = model_size(model_of("switch", num_experts=7, top_k=1, num_shared=1), 32)
    fine = model_size(model_of("switch", num_experts=32, top_k=8, expert_size=2), 32)
    assert plain.active - shared.active == 2 * 16 and fine.active - plain.active == 2 * 24 * 16
    assert plain.total - shared.total == 2 * 16 and fine.total - plain.total == 2 * 24 * 16


# Equal size


@pytest.mark.parametrize("measure", ["active", "flops"])
@pytest.mark.parametrize(
    ("hidden", "expert_size", "experts", "top_k", "gated", "num_shared"),
    [(128, 256, 8, 2, True, 0), (64, 200, 16, 4, False, 0), (256, 512, 8, 1, True, 1)],
)
def test_widened_experts_agree_with_spectra_to_one_percent(
    measure, hidden, expert_size, experts, top_k, gated, num_shared
):
    shape = dict(num_experts=experts, top_k=top_k, expert_size=expert_size, gated=gated, num_shared=num_shared)
    backbone = backbone_of(hidden_size=hidden, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=2)
    settings = settings_of("switch", **shape)
    wide = replace(settings, expert_size=widened(settings, hidden, measure))
    found = [model_size(new_model(backbone, s, 0), 64) for s in (settings_of("spectra", **shape), wide, settings)]
    spectra, same, narrow = ((s.active if measure == "active" else s.flops_per_token) for s in found)
    assert same == pytest.approx(spectra, rel=0.01)
    # The wrong version leaves the width as it is.
    assert abs(narrow - spectra) > 0.02 * spectra
    assert found[1].total > found[2].total
