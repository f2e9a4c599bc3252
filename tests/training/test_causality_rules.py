"""Causality under both rules, measured once where the two are one."""

from __future__ import annotations

import pytest

from spectra_exp.moe.layer import MoeLayer
from spectra_exp.routing.selection import select_expert_choice
from spectra_exp.training.evaluation import Evaluator
from spectra_exp.training.execute import execute

# Without the noise of training, Switch routes by one rule.
SHORT = ("trainer.max_steps=2", "baseline=switch_top2", "router.jitter=0")


@pytest.fixture
def measured(monkeypatch) -> list[bool]:
    """The rules under which causality was measured."""
    rules: list[bool] = []
    plain = Evaluator.causality
    monkeypatch.setattr(
        Evaluator,
        "causality",
        lambda self, model, training_rule: rules.append(training_rule) or plain(self, model, training_rule),
    )
    return rules


def test_one_rule_is_measured_once_and_two_are_measured_each(planned, measured):
    p = planned(*SHORT)
    assert execute(p, "") == "completed"
    summary = p.folder.read_summary()
    assert measured == [False] and summary["causal"] is summary["causal_training"] is True
    assert summary["causality_change"] == summary["causality_change_training"]
    p = planned("trainer.max_steps=2")
    assert execute(p, "") == "completed"
    assert measured[1:] == [False, True] and p.folder.read_summary()["causal_training"] is False


def test_a_router_that_leaks_in_training_without_saying_so_is_still_caught(planned, measured, monkeypatch):
    plain = MoeLayer.select

    def leaks(self, scores_NE, training_rule):
        if training_rule and not self.training:
            return select_expert_choice(scores_NE, self.settings.top_k, 1.0)
        return plain(self, scores_NE, training_rule)

    monkeypatch.setattr(MoeLayer, "select", leaks)
    p = planned(*SHORT)
    assert execute(p, "") == "completed"
    summary = p.folder.read_summary()
    assert measured == [False, True]
    assert (summary["causal"], summary["causal_training"]) == (True, False)
