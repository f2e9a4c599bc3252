"""Every option of the routers in a whole model: decoding, padding, beams, causality, checkpointing, save and load.

Letters: B sequences, S tokens each, E experts.
"""

from __future__ import annotations

import pytest
import torch
from moe_cases import VOCABULARY, backbone_of, ids_of, logits_of, model_of, settled, train_pass

from spectra_exp.measure.causality import measure_causality
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.losses import LossesConfig
from spectra_exp.routing.temperature import TemperatureConfig

DUAL = {"sinkhorn_inference": "dual", "potentials": "hard", "training": "potentials"}


def spectra(**router):
    return dict(name="spectra", osr=DUAL, router=router)


OPTIONS = {
    "gru_block": spectra(sequence="gru_block"),
    "min_gru": spectra(sequence="min_gru"),
    "lstm": spectra(sequence="lstm"),
    "attention": spectra(sequence="attention"),
    "time scales": spectra(gate_spread="experts"),
    "quantile potentials": dict(name="spectra", osr=DUAL | {"potentials": "quantile"}),
    "online potentials": dict(name="spectra", osr=DUAL | {"online_rate": 0.2}),
    "dot": spectra(similarity="dot"),
    "l2": spectra(similarity="l2"),
    "bilinear": spectra(similarity="bilinear"),
    "periodic": spectra(orthogonalization="periodic", orthogonalize_every=2),
    "newton_schulz": spectra(orthogonalization="newton_schulz"),
    "plain": spectra(orthogonalization="none"),
    "mean_cosine": spectra(orthogonality_measure="mean_cosine"),
    "logdet": spectra(orthogonality_measure="logdet"),
    "load average": spectra(load_ema_strength=0.3),
    "shared": spectra(shared=True, sequence="gru_block"),
    "expert temperature": spectra() | dict(temperature=TemperatureConfig(value=1.5, learned="expert")),
    "token temperature": dict(name="switch", temperature=TemperatureConfig(value=1.5, learned="token")),
    "loss_free": dict(name="loss_free"),
    "sqrt_softplus": dict(name="loss_free", router={"score": "sqrt_softplus"}),
    "sequence loss": dict(name="loss_free", router={"load_balance_coef": 0.1}, losses=LossesConfig("sequence")),
    "quantile": dict(name="quantile"),
    "quantile histogram": dict(name="quantile", router={"estimator": "histogram", "ema": 0.5}),
    "bip": dict(name="bip"),
    "simbal": dict(name="simbal"),
    "router orthogonality": dict(name="router_orthogonality"),
    "output orthogonality": dict(name="output_orthogonality"),
    "remoe": dict(name="remoe", router={"l1_start": 0.01}),
    "expert threshold": dict(name="expert_threshold"),
    "mlp": dict(name="mlp"),
    "beta_memory": dict(name="beta_memory"),
    "beta_memory stateless": dict(name="beta_memory", router={"recurrent": False}),
    "rmoe": dict(name="rmoe", router={"width": 6}),
    "causal_bias": dict(name="causal_bias", router={"strength": 0.5}),
    "sinkhorn": dict(name="sinkhorn"),
    "random": dict(name="random"),
}
each_option = pytest.mark.parametrize("option", OPTIONS)


def evaluated(option: str) -> SpectraMoeForCausalLM:
    return settled(model_of(backbone=backbone_of(tie_word_embeddings=False), **OPTIONS[option]))


@each_option
@torch.no_grad()
def test_decoding_with_a_cache_equals_one_full_pass(option):
    model, ids = evaluated(option), ids_of(2, 10)
    whole, cache, parts = model(input_ids=ids, use_cache=False).logits, None, []
    for begin, end in ((0, 4), (4, 5), (5, 6), (6, 10)):
        output = model(input_ids=ids[:, begin:end], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


@each_option
@torch.no_grad()
def test_left_padding_and_beams_leave_generation_as_it_is(option):
    model, ids = evaluated(option), ids_of(2, 6)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    wanted = dict(max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    batch = model.generate(ids, attention_mask=mask, **wanted)
    alone = model.generate(ids[:1, 2:], attention_mask=mask[:1, 2:], **wanted)
    assert torch.equal(batch[0, 6:], alone[0, 4:])
    beams = [
        model.generate(ids[1:], attention_mask=mask[1:], num_beams=3, use_cache=c, **wanted) for c in (True, False)
    ]
    assert torch.equal(*beams)


@each_option
def test_causal_in_evaluation(option):
    found = measure_causality(logits_of(evaluated(option)), ids_of(3, 12), VOCABULARY)
    assert found.causal, found


def test_sinkhorn_at_inference_is_not_causal():
    model = settled(model_of("sinkhorn", router={"inference": "sinkhorn"}))
    found = measure_causality(logits_of(model), ids_of(3, 12), VOCABULARY)
    assert not found.causal and found.largest_change_other_sequences > 1e-3


@each_option
def test_gradient_checkpointing_changes_nothing(option):
    results = []
    for checkpointing in (False, True):
        model = model_of(**OPTIONS[option])
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        losses = [train_pass(model, ids_of(seed=step), step) for step in range(2)]
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((losses, gradients, dict(model.named_buffers())))
    (losses, gradients, buffers), (again, again_gradients, again_buffers) = results
    assert torch.equal(torch.stack(losses), torch.stack(again))
    for name, gradient in gradients.items():
        torch.testing.assert_close(again_gradients[name], gradient, atol=1e-6, rtol=1e-4)
    assert all(torch.equal(b, again_buffers[n]) for n, b in buffers.items())


@each_option
def test_a_loaded_model_goes_on_as_the_saved_one(option, tmp_path):
    model = model_of(**OPTIONS[option])
    train_pass(model, ids_of())
    model.save_pretrained(tmp_path)
    loaded = SpectraMoeForCausalLM.from_pretrained(tmp_path).train()
    losses = [[train_pass(m, ids_of(seed=step), step) for step in (1, 2)] for m in (model, loaded)]
    assert torch.equal(*(torch.stack(values) for values in losses))
    assert all(torch.equal(b, dict(loaded.named_buffers())[n]) for n, b in model.named_buffers())


@each_option
def test_training_reaches_every_parameter_of_the_router(option):
    model = model_of(**OPTIONS[option])
    train_pass(model, ids_of())
    missing = [n for n, p in model.named_parameters() if ".router." in n and (p.grad is None or not p.grad.any())]
    assert not missing
