"""router.carry=final_state, the paper's: a layer starts from the previous layer's last state, and is not causal.

Letters: B sequences, S tokens each, E experts.
"""

from __future__ import annotations

import pytest
import torch
from moe_cases import VOCABULARY, ids_of, logits_of, model_of, settled
from router_cases import inputs_of, normal, router_of, settings_of

from spectra_exp.measure.causality import measure_causality
from spectra_exp.moe.context import RoutingContext
from spectra_exp.routing.sequence import ENCODERS

FIXED = [name for name, encoder in ENCODERS.items() if encoder.fixed_state]


def state_of(sequence: str, seed: int = 4) -> torch.Tensor:
    router = router_of(settings_of("spectra", sequence=sequence))
    return router(inputs_of(seed=seed)).state


@pytest.mark.parametrize("sequence", FIXED)
def test_the_previous_state_is_the_first(sequence):
    router = router_of(settings_of("spectra", carry="final_state", sequence=sequence))
    previous, carry = state_of(sequence), normal(3, 7, 4, 16, seed=8)
    found = router(inputs_of(previous_state=previous, carry_BSED=carry))
    expected = router.sequence(inputs_of().hidden_BSd, None, previous)
    torch.testing.assert_close(found.state, expected[1])
    torch.testing.assert_close(found.carry_BSED, torch.nn.functional.normalize(expected[0], dim=-1))
    # The first routed layer starts from nothing; decoding goes on from where this layer was.
    assert not torch.allclose(found.carry_BSED, router(inputs_of()).carry_BSED, atol=1e-3)
    own = state_of(sequence, seed=5)
    going_on = router(inputs_of(previous_state=previous, state=own))
    assert torch.equal(going_on.carry_BSED, router(inputs_of(state=own)).carry_BSED)


@pytest.mark.parametrize("carry", ["token", "none"])
def test_the_other_carries_do_not_see_it(carry):
    router = router_of(settings_of("spectra", carry=carry))
    assert torch.equal(router(inputs_of(previous_state=state_of("gru"))).carry_BSED, router(inputs_of()).carry_BSED)


@pytest.mark.parametrize("sequence", FIXED)
def test_layers_hand_their_state_on_and_gradients_flow_back(sequence):
    model = model_of("spectra", router={"carry": "final_state", "sequence": sequence})
    context = RoutingContext(training_rule=True)
    model(input_ids=ids_of(), routing=context)
    second = model.routed_layers[1].router
    seen = {}
    forward = second.forward
    second.forward = lambda inputs: seen.update(state=inputs.previous_state) or forward(inputs)
    context = RoutingContext(training_rule=True)
    loss = model(input_ids=ids_of(), labels=ids_of(), routing=context).loss
    assert seen["state"] is context.new_states[0]
    first = model.routed_layers[0].router.sequence
    gradient = torch.autograd.grad(seen["state"].sum(), list(first.parameters()), retain_graph=True)
    assert all(g.isfinite().all() for g in gradient)
    loss.backward()


@pytest.mark.parametrize("carry", ["final_state", "token", "none"])
def test_it_is_not_causal_and_the_others_are(carry):
    settings = dict(osr={"sinkhorn_inference": "dual", "potentials": "hard"}, router={"carry": carry})
    model = settled(model_of("spectra", **settings))
    found = measure_causality(logits_of(model), ids_of(3, 12), VOCABULARY)
    assert found.causal == (carry != "final_state"), found
    # It looks ahead within a sequence, never into another.
    moved_by_others = found.largest_change if found.causal else found.largest_change_other_sequences
    assert moved_by_others < 1e-5


def test_gradient_checkpointing_changes_nothing():
    losses, gradients = [], []
    for checkpointing in (False, True):
        model = model_of("spectra", router={"carry": "final_state", "sequence": "min_gru"})
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        loss = model(input_ids=ids_of(), labels=ids_of()).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.parameters()])
    assert torch.equal(*losses)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)
