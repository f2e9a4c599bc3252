"""The routed model as a Hugging Face model: saving, initial weights, padding, state, dropout.

Letters: V vocabulary.
"""

from __future__ import annotations

import math

import pytest
import torch
from moe_cases import (
    HIDDEN,
    ROUTED,
    ROUTERS,
    VOCABULARY,
    backbone_of,
    ids_of,
    model_of,
    settings_of,
    settled,
    train_pass,
)
from torch import nn
from transformers import AutoModelForCausalLM

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.next_token import causal_lm_loss, next_token_losses
from spectra_exp.moe.settings import MoeSettings
from spectra_exp.routing.base import router_class
from spectra_exp.routing.temperature import TemperatureConfig

each_router = pytest.mark.parametrize("name", ROUTERS)
each_routed = pytest.mark.parametrize("name", ROUTED)


@each_router
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_give_identical_logits(name, tied, tmp_path):
    model = model_of(
        name,
        backbone=backbone_of(tie_word_embeddings=tied),
        osr={"sinkhorn_inference": "dual"},
        temperature=TemperatureConfig(schedule="linear"),
        total_steps=10,
    )
    model = settled(model)
    model.set_step(7)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, SpectraMoeForCausalLM) and not loaded.training
    ids = ids_of()
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert loaded.step == 7 and loaded.settings == model.settings
    state, found = model.state_dict(), loaded.state_dict()
    assert state.keys() == found.keys() and all(torch.equal(state[k], found[k]) for k in state)
    head, embedding = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert (head is embedding) == tied


@each_routed
def test_a_loaded_model_trains_on_as_the_saved_one(name, tmp_path):
    """Counts of the step once came back from loading as uninitialised memory."""
    model = model_of(name, osr={"potentials": "hard"})
    train_pass(model, ids_of())
    model.save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path).train()
    losses = [train_pass(m, ids_of(seed=1), 1) for m in (model, loaded)]
    assert torch.equal(*losses)
    buffers = [dict(m.named_buffers()) for m in (model, loaded)]
    assert all(torch.equal(value, buffers[1][key]) for key, value in buffers[0].items())


@each_router
def test_routing_stays_float32_in_a_bfloat16_model(name, tmp_path):
    model_of(name).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    output = loaded(input_ids=ids_of())
    assert output.logits.dtype == torch.bfloat16 and output.logits.isfinite().all()
    for layer in loaded.routed_layers:
        assert layer.experts.up.dtype == torch.bfloat16
        assert all(t.dtype != torch.bfloat16 for t in layer.router.state_dict().values())
        assert output.routing.records[layer.layer].weights_NE.dtype == torch.float32
    cast = SpectraMoeForCausalLM.from_pretrained(tmp_path).to(torch.bfloat16)
    assert cast(ids_of()).logits.isfinite().all()
    for layer in cast.routed_layers:
        assert all(t.dtype != torch.bfloat16 for t in layer.router.state_dict().values())


def test_settings_survive_config_json_and_refuse_what_they_do_not_know():
    settings = settings_of("spectra", osr={"sinkhorn_epsilon": 0.3}, router={"dim": 5})
    assert MoeSettings.from_dict(settings.to_dict()) == settings
    values = settings.to_dict()
    values["router"]["dimm"] = 3
    with pytest.raises(ConfigError, match="did you mean 'dim'"):
        MoeSettings.from_dict(values)


# Losses


def test_loss_is_of_the_next_token():
    """Unshifted labels would call a copying model perfect."""
    ids = ids_of(2, 6)
    copying = nn.functional.one_hot(ids, VOCABULARY) * 50.0
    foreseeing = nn.functional.one_hot(ids.roll(-1, 1), VOCABULARY) * 50.0
    assert causal_lm_loss(foreseeing, ids) < 1e-6 and causal_lm_loss(copying, ids) > 10
    labels = ids.clone()
    labels[0] = -100
    uniform = torch.zeros(2, 6, VOCABULARY)
    assert next_token_losses(uniform, labels).tolist() == pytest.approx([0.0] * 5 + [math.log(VOCABULARY)] * 5)
    assert float(causal_lm_loss(uniform, labels)) == pytest.approx(math.log(VOCABULARY))
    assert causal_lm_loss(uniform, torch.full_like(ids, -100)) == 0


@each_routed
def test_loss_is_the_sum_of_its_terms(name):
    model = model_of(name)
    ids = ids_of()
    output = model(input_ids=ids, labels=ids)
    total = output.lm_loss + sum(output.coefficients[n] * term for n, term in output.terms.items())
    torch.testing.assert_close(output.loss, total)
    assert set(output.terms) == set(model.routed_layers[0].router.loss_coefficients(0, 1))
    for term, value in output.terms.items():
        per_layer = [output.routing.records[layer].losses[term] for layer in (0, 1)]
        torch.testing.assert_close(value, (per_layer[0] + per_layer[1]) / 2)
    model.eval()
    assert not model(input_ids=ids, labels=ids).terms


@each_routed
def test_a_batch_of_padding_alone_has_no_loss_and_moves_nothing(name):
    model, ids = model_of(name), ids_of(2, 5)
    train_pass(model, ids)
    before = {n: b.clone() for n, b in model.named_buffers()}
    output = model(input_ids=ids, labels=torch.full_like(ids, -100), attention_mask=torch.zeros_like(ids))
    output.loss.backward()
    model.after_optimizer_step(1.0)
    assert output.loss == 0
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


@each_routed
@pytest.mark.parametrize("top_k", [1, 2])
def test_the_language_model_loss_reaches_every_router(name, top_k):
    model, ids = model_of(name, top_k=top_k), ids_of()
    model(input_ids=ids, labels=ids).lm_loss.backward()
    for layer in model.routed_layers:
        for parameter in layer.router.parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0
        assert layer.experts.up.grad.abs().amax((1, 2)).gt(0).any()


# State


@each_routed
def test_evaluation_moves_no_state(name):
    model = model_of(name, osr={"potentials": "hard"})
    train_pass(model, ids_of())
    before = {n: b.clone() for n, b in model.named_buffers()}
    model.eval()
    model(input_ids=ids_of(seed=1), labels=ids_of(seed=1)).loss.backward()
    with torch.no_grad():
        model(input_ids=ids_of(seed=2), routing=RoutingContext(training_rule=True))
        model.train()(input_ids=ids_of(seed=2), labels=ids_of(seed=2))  # no gradients, so no training pass
    model.after_optimizer_step(1.0)
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    if name == "spectra":  # planted fault: a training pass does move it
        train_pass(model, ids_of(seed=1))
        assert not all(torch.equal(b, before[n]) for n, b in model.named_buffers())


def test_counts_are_those_of_all_micro_batches():
    model, seen = model_of("spectra", osr={"potentials": "hard", "training": "potentials"}), []
    model.routed_layers[0].router.after_step = lambda counts_E, scale: seen.append(counts_E.clone())
    batches = [ids_of(2, 8, seed) for seed in (0, 1)]
    expected = torch.zeros(4)
    for ids in batches:
        output = model(input_ids=ids, labels=ids)
        output.loss.backward()
        expected += output.routing.records[0].chosen_NE.sum(0)
    model.after_optimizer_step(1.0)
    model.after_optimizer_step(1.0)  # a step without a pass has no load to answer
    assert len(seen) == 1 and torch.equal(seen[0], expected)


def test_noise_differs_between_steps_passes_and_layers_and_repeats_with_them():
    model, ids = model_of("temperature", router={"noise": 1.0}), ids_of()

    def pass_at(step, passes=1):
        model.set_step(step)
        for _ in range(passes):
            output = model(input_ids=ids, labels=ids)
        return output.routing

    first = pass_at(0)
    again, second_pass, next_step = pass_at(0), pass_at(0, passes=2), pass_at(1)
    assert first.noise_seed == again.noise_seed
    assert torch.equal(first.records[0].weights_NE, again.records[0].weights_NE)
    for other in (second_pass, next_step):
        assert not torch.equal(first.records[0].weights_NE, other.records[0].weights_NE)
    assert first.layer_noise_seed(0) != first.layer_noise_seed(1)


def test_temperature_follows_the_step():
    schedule = TemperatureConfig(schedule="linear", start=5.0, end=1.0)
    model = model_of("temperature", router={"noise": 0.0}, temperature=schedule, total_steps=5)
    for step, expected in ((0, 5.0), (2, 3.0), (4, 1.0)):
        model.set_step(step)
        assert model(input_ids=ids_of()).routing.temperature == expected


# Padding


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in ROUTERS), ("hash", {"kind": "bigram"})])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_real_tokens(name, options, side):
    model = settled(model_of(name, osr={"sinkhorn_inference": "dual"}, router=options))
    documents = [ids_of(1, length, seed)[0] for length, seed in ((9, 0), (5, 1), (7, 2))]
    ids, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    for row, document in enumerate(documents):
        at = slice(9 - len(document), 9) if side == "left" else slice(0, len(document))
        ids[row, at], mask[row, at] = document, 1
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).logits
        for row, document in enumerate(documents):
            alone = model(input_ids=document[None]).logits[0]
            torch.testing.assert_close(padded[row][mask[row].bool()], alone, atol=1e-5, rtol=1e-4)


# Dropout, the dense backbone


def test_dropout_acts_in_training_alone():
    model, ids = model_of("switch", dropout=0.5, router={"jitter": 0.0}), ids_of()

    def logits(seed):
        torch.manual_seed(seed)
        return model(input_ids=ids).logits

    assert torch.equal(logits(0), logits(0)) and not torch.equal(logits(0), logits(1))
    model.eval()
    assert torch.equal(logits(0), logits(1))


def test_dense_has_no_routed_layer():
    model = model_of("dense", top_k=3)
    assert model.routed_layers == [] and router_class("dense").selections() == ["topk"]
    assert model.backbone.model.layers[0].mlp.up.weight.shape == (3 * 8, HIDDEN)
    assert train_pass(model, ids_of()).isfinite()
