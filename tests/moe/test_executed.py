"""What a record counts is what the experts executed, also under a rule that gives tokens unequal numbers of experts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_cases import family_model
from family_cases import ids_of as family_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_cases import ids_of, model_of, settings_of

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.dispatch import sorted_on_device
from spectra_exp.moe.experts import Experts
from spectra_exp.moe.record import check_executed
from spectra_exp.moe.reroute import reroute
from spectra_exp.routing.selection import SELECTIONS, SelectionRule


def varied(scores_NE: torch.Tensor, top_k: int, capacity_factor: float) -> torch.Tensor:
    """Each token's experts but the worst; the first token has all."""
    chosen_NE = scores_NE > scores_NE.min(1, keepdim=True).values
    chosen_NE[0] = True
    return chosen_NE


@pytest.fixture
def varying(monkeypatch):
    """Every token's best K replaced by a varying number, under the same name."""
    monkeypatch.setitem(SELECTIONS, "topk", replace(SELECTIONS["topk"], choose=varied))


def records_of(model, ids) -> list:
    context = RoutingContext(keep_outputs=True)
    with torch.no_grad():
        model(input_ids=ids, use_cache=False, routing=context)
    return [context.records[layer.layer] for layer in model.routed_layers]


@pytest.mark.parametrize("rule", SELECTIONS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_rule_keeps_its_bound(rule, data):
    N, E = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    k, alpha = data.draw(st.integers(1, E)), data.draw(st.sampled_from([1.0, 1.1, 1.25, 3.0]))
    declared = SELECTIONS[rule]
    chosen_NE = declared.choose(torch.randn(N, E), k, alpha)
    assert not declared.at_most_k or chosen_NE.sum(1).max() <= k
    most = declared.most_assignments(N, E, k, alpha)
    assert most is None or chosen_NE.sum() <= most
    assert chosen_NE.sum() <= declared.experts_per_token(E, k, alpha) * N + E


def test_a_rule_that_breaks_its_bound_is_told_with_the_number_that_a_gpu_leaves_out(varying, monkeypatch):
    model = model_of("switch").eval()
    at = {}

    def on_gpu(self, tokens_Nd, chosen_NE, weights_NE, most=None):
        rows = self._looped(tokens_Nd, sorted_on_device(chosen_NE, most))
        at[id(self)] = rows.assignments
        return plain(self, tokens_Nd, chosen_NE, weights_NE, most)

    plain = Experts.forward
    monkeypatch.setattr(Experts, "forward", on_gpu)
    monkeypatch.setattr(Experts, "_looped", lambda self, tokens, a: self._grouped(tokens, a))
    records = records_of(model, ids_of())
    for record, layer in zip(records, model.routed_layers, strict=True):
        executed = int(at[id(layer.experts)].real_A.sum())
        assert int(record.unexecuted) == int(record.chosen_NE.sum()) - executed > 0
    with pytest.raises(SpectraError, match="routed layer 0: .* declare its bound"):
        check_executed(records)


def test_a_rule_with_no_bound_is_executed_whole(monkeypatch):
    monkeypatch.setitem(SELECTIONS, "varied", SelectionRule("varied", varied, sees_other_tokens=True))
    model = model_of("switch", selection={"rule": "varied", "at_inference": True}).eval()
    records = records_of(model, ids_of())
    check_executed(records)
    assert all(record.unexecuted is None and record.chosen_NE.sum(1).unique().numel() > 1 for record in records)


@pytest.mark.parametrize("rule", ["topk", "varied"])
def test_a_source_s_experts_get_every_place_or_it_is_told(rule, varying, monkeypatch):
    monkeypatch.setitem(SELECTIONS, "varied", SelectionRule("varied", varied, sees_other_tokens=True))
    made = settings_of("switch", top_k=2, selection={"rule": rule, "at_inference": True})
    model = reroute(family_model("mixtral"), made, 0, None, True).eval()
    records = records_of(model, family_ids())
    assert all(bool(record.unexecuted > 0) == (rule == "topk") for record in records)


@pytest.mark.parametrize("name", ["switch", "spectra", "expert_choice"])
def test_our_own_are_executed_whole(name):
    check_executed(records_of(model_of(name).eval(), ids_of()))


@pytest.mark.parametrize("wrong", [lambda s, k, a: (s > 0).float(), lambda s, k, a: s[:1] > 0])
def test_a_rule_that_gives_no_assignments_is_told_in_a_line(monkeypatch, wrong):
    monkeypatch.setitem(SELECTIONS, "topk", replace(SELECTIONS["topk"], choose=wrong))
    with pytest.raises(SpectraError, match=r"selection rule 'topk' gave .*, not bool \[\d+, \d+\]: tokens, experts"):
        records_of(model_of("switch").eval(), ids_of())
