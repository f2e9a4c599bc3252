"""Decoding token by token with a cache equals full forward passes; padding and beams do not disturb it."""

from __future__ import annotations

import pytest
import torch
from moe_cases import backbone_of, ids_of, model_of, settled

from spectra_exp.moe.model import SpectraMoeForCausalLM

SETTINGS = {
    "dual": dict(name="spectra", osr={"sinkhorn_inference": "dual", "potentials": "hard"}),
    "per token": dict(name="spectra", osr={"sinkhorn_inference": "false"}),
    "running_mean": dict(name="spectra", osr={"sinkhorn_inference": "dual"}, router={"expression": "running_mean"}),
    "switch": dict(name="switch"),
    "beta_memory": dict(name="beta_memory"),
    "causal_bias": dict(name="causal_bias", router={"strength": 0.5}),
    "rmoe": dict(name="rmoe"),
    "balanced": dict(name="hash"),
    "bigram": dict(name="hash", router={"kind": "bigram"}),
    "dense": dict(name="dense"),
}
NEW = 10
each_setting = pytest.mark.parametrize("setting", SETTINGS)


def _model(setting: str) -> SpectraMoeForCausalLM:
    # Tied embeddings would make it repeat its last token for ever.
    return settled(model_of(backbone=backbone_of(tie_word_embeddings=False), **SETTINGS[setting]))


def _greedy(model, ids):
    """New tokens by one full forward pass per token, without a cache."""
    for _ in range(NEW):
        step = model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, step[:, None]], dim=1)
    return ids


def _generate(model, ids, mask=None, **options):
    mask = torch.ones_like(ids) if mask is None else mask
    return model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0, **options
    )


@each_setting
@torch.no_grad()
def test_generation_equals_full_passes(setting):
    model, ids = _model(setting), ids_of(2, 6)
    expected = _greedy(model, ids)
    assert torch.equal(_generate(model, ids), expected)
    assert len(set(expected[:, 6:].flatten().tolist())) > 3, "a model that repeats itself proves little"


@each_setting
@torch.no_grad()
def test_logits_with_a_cache_equal_one_full_pass(setting):
    model, ids = _model(setting), ids_of(2, 12)
    whole = model(input_ids=ids, use_cache=False).logits
    cache, found = None, []
    for start, stop in ((0, 5), (5, 6), (6, 7), (7, 10), (10, 12)):
        output = model(input_ids=ids[:, start:stop], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=1e-4)


@each_setting
@torch.no_grad()
def test_left_padding_does_not_disturb_generation(setting):
    model = _model(setting)
    prompts = [ids_of(1, length, seed) for length, seed in ((7, 0), (3, 1), (5, 2))]
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, 7 - prompt.shape[1] :], mask[row, 7 - prompt.shape[1] :] = prompt[0], 1
    together = _generate(model, ids, mask)[:, 7:]
    for row, prompt in enumerate(prompts):
        assert torch.equal(together[row], _greedy(model, prompt)[0, prompt.shape[1] :])


@pytest.mark.parametrize("setting", ["dual", "bigram", "beta_memory", "causal_bias"])
@torch.no_grad()
def test_beam_search_takes_the_routing_state_along(setting):
    model, ids = _model(setting), ids_of(3, 6)
    expected = _generate(model, ids, num_beams=4, use_cache=False)
    assert torch.equal(_generate(model, ids, num_beams=4), expected)


@torch.no_grad()
def test_a_cache_without_routing_state_would_change_the_logits():
    """The wrong version: a cache that carries keys and values alone."""
    changed = {}
    for setting in ("dual", "bigram", "beta_memory", "causal_bias", "switch", "rmoe"):
        model, ids = _model(setting), ids_of(2, 12)
        whole = model(input_ids=ids, use_cache=False).logits[:, 6:]
        cache = model(input_ids=ids[:, :6], use_cache=True).past_key_values
        cache.routing_states, cache.routing_last_ids = {}, None
        rest = model(input_ids=ids[:, 6:], past_key_values=cache, use_cache=True).logits
        changed[setting] = float((rest - whole).abs().max())
    assert min(changed[name] for name in ("dual", "bigram", "beta_memory", "causal_bias")) > 1e-3
    assert max(changed["switch"], changed["rmoe"]) < 1e-4


@torch.no_grad()
def test_beams_that_keep_their_old_state_differ():
    """The wrong version: reordering keys and values but not the recurrent state."""
    model, ids = _model("dual"), ids_of(3, 6)
    prompt = model(input_ids=ids, use_cache=True).past_key_values
    order = torch.tensor([2, 0, 0])
    whole = model(input_ids=torch.cat([ids[order], ids[:, :1]], 1), use_cache=False).logits[:, -1]
    moved = model._reorder_cache(prompt, order)
    right = model(input_ids=ids[:, :1], past_key_values=moved, use_cache=True).logits[:, -1]
    torch.testing.assert_close(right, whole, atol=1e-5, rtol=1e-4)
    stale = model(input_ids=ids, use_cache=True).past_key_values
    stale.reorder_cache(order)
    wrong = model(input_ids=ids[:, :1], past_key_values=stale, use_cache=True).logits[:, -1]
    assert (wrong - whole).abs().max() > 1e-3
