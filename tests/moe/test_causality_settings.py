"""Which settings see the future, by hand, against what the measurement finds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from moe_cases import VOCABULARY, ids_of, logits_of, model_of, settled

from spectra_exp.measure.causality import TOLERANCE, measure_causality
from spectra_exp.moe.context import RoutingContext

QUOTA = {"rule": "quota", "capacity_factor": 1.0}
CHOICE = {"rule": "expert_choice", "capacity_factor": 1.0}
HERE = {"at_inference": True}


def _spectra(inference: str, selection: dict | None = None, **router):
    osr = {"sinkhorn_inference": inference, "potentials": "hard"}
    return dict(name="spectra", osr=osr, selection=selection or {}, router=router)


# (setting, causal in evaluation): top-k routes each token alone; quota and expert choice, where they act in
# evaluation, look at the batch; so does Sinkhorn, whatever selects after it.
EVALUATION = [
    (dict(name="switch"), True),
    (dict(name="switch", selection=QUOTA), True),
    (dict(name="switch", selection=QUOTA | HERE), False),
    (dict(name="temperature"), True),
    (dict(name="temperature", selection=QUOTA | HERE), False),
    (dict(name="expert_choice", selection=CHOICE), True),
    (dict(name="expert_choice", selection=CHOICE | HERE), False),
    (dict(name="simbal"), True),
    (dict(name="router_orthogonality"), True),
    (dict(name="output_orthogonality"), True),
    (dict(name="quantile"), True),
    (dict(name="quantile", router={"estimator": "histogram"}), True),
    (dict(name="bip"), True),
    (dict(name="remoe"), True),
    (dict(name="expert_threshold"), True),
    (dict(name="loss_free", router={"score": "sqrt_softplus"}), True),
    (dict(name="mlp"), True),
    (dict(name="beta_memory"), True),
    (dict(name="rmoe"), True),
    (dict(name="causal_bias", router={"strength": 0.5}), True),
    (dict(name="hash"), True),
    (dict(name="hash", router={"kind": "random"}), True),
    (dict(name="hash", router={"kind": "bigram"}), True),
    (dict(name="dense"), True),
    (_spectra("false"), True),
    (_spectra("dual"), True),
    (_spectra("true"), False),
    (_spectra("false", QUOTA), True),
    (_spectra("dual", QUOTA), True),
    (_spectra("true", QUOTA), False),
    (_spectra("false", QUOTA | HERE), False),
    (_spectra("dual", QUOTA | HERE), False),
    (_spectra("dual", CHOICE), True),
    (_spectra("dual", CHOICE | HERE), False),
    (_spectra("dual", sequence="linear"), True),
    (_spectra("dual", sequence="shared_linear", expression="embedding"), True),
    (_spectra("dual", expression="running_mean"), True),
    (_spectra("dual", carry="none"), True),
]

# The training rule, measured without dropout: SPECTRA's weights come from the batch's plan, whatever selects.
TRAINING = [
    (dict(name="switch"), True),
    (dict(name="switch", selection=QUOTA), False),
    (dict(name="expert_choice", selection=CHOICE), False),
    (dict(name="hash"), True),
    (dict(name="quantile"), True),
    (dict(name="beta_memory"), True),
    (dict(name="rmoe"), True),
    (dict(name="causal_bias", router={"strength": 0.5}), True),
    (dict(name="bip"), False),
    (dict(name="remoe"), True),
    (dict(name="expert_threshold"), True),
    (_spectra("dual"), False),
    (dict(name="spectra", osr={"training": "potentials", "potentials": "hard", "sinkhorn_inference": "dual"}), False),
    (dict(name="spectra", osr={"solver": "softmax", "repulsion_weight": 0.0}), True),
]


def _name(setting: dict) -> str:
    parts = [setting["name"]]
    for group in ("osr", "selection", "router"):
        parts += [str(value) for value in setting.get(group, {}).values()]
    return " ".join(parts)


def _ids(table: list) -> list[str]:
    return [_name(setting) for setting, _ in table]


@pytest.mark.parametrize(("setting", "causal"), EVALUATION, ids=_ids(EVALUATION))
def test_evaluation(setting, causal):
    model = settled(model_of(**setting))
    found = measure_causality(logits_of(model), ids_of(3, 12), VOCABULARY)
    assert found.causal == causal, found
    # Far from the tolerance on both sides, so that the verdict is no accident.
    assert found.largest_change < TOLERANCE / 5 if causal else found.largest_change > TOLERANCE * 5
    if not causal:
        assert found.largest_change_other_sequences > TOLERANCE


@pytest.mark.parametrize(("setting", "causal"), TRAINING, ids=_ids(TRAINING))
def test_training_rule(setting, causal):
    model = settled(model_of(**setting))

    def logits(ids):
        return model(input_ids=ids, use_cache=False, routing=RoutingContext(training_rule=True)).logits

    assert measure_causality(logits, ids_of(3, 12), VOCABULARY).causal == causal


def _leaky(mix):
    """A switch model whose second router sees mix(hidden) besides its own token."""
    model = settled(model_of("switch"))
    router = model.routed_layers[1].router
    forward = router.forward

    def leaking(inputs):
        return forward(replace(inputs, hidden_BSd=inputs.hidden_BSd + mix(inputs.hidden_BSd)))

    router.forward = leaking
    return measure_causality(logits_of(model), ids_of(3, 12), VOCABULARY)


def test_a_router_that_averages_over_its_sequence_is_caught():
    found = _leaky(lambda hidden_BSd: hidden_BSd.mean(dim=1, keepdim=True))
    assert not found.causal and found.largest_change_later_tokens > 10 * TOLERANCE
    assert found.largest_change_other_sequences <= TOLERANCE


def test_a_router_that_averages_over_sequences_is_caught():
    found = _leaky(lambda hidden_BSd: hidden_BSd.mean(dim=0, keepdim=True))
    assert not found.causal and found.largest_change_other_sequences > 10 * TOLERANCE
    assert found.largest_change_later_tokens <= TOLERANCE


def test_looking_back_is_no_leak():
    assert _leaky(lambda hidden_BSd: hidden_BSd.cumsum(dim=1)).causal


def test_the_last_token_of_another_document_is_caught():
    """A leak of one token at one place, in the logits themselves."""

    def logits(ids):
        plain = torch.nn.functional.one_hot(ids, VOCABULARY).float().cumsum(1)
        plain[0, 0, 0] += float(ids[0, -1] == plain.shape[-1] // 2) + 1e-3 * float(ids[0, -1])
        return plain

    found = measure_causality(logits, ids_of(2, 6), VOCABULARY)
    assert not found.causal and found.largest_change_other_sequences == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_no_proof(broken):
    found = measure_causality(lambda ids: torch.full((*ids.shape, VOCABULARY), broken), ids_of(2, 6), VOCABULARY)
    assert not found.causal and found.largest_change == math.inf


def test_too_little_to_judge_is_refused():
    with pytest.raises(ValueError, match="two sequences"):
        measure_causality(lambda ids: torch.zeros(1, 8, VOCABULARY), ids_of(1, 8), VOCABULARY)
