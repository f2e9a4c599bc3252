from __future__ import annotations

from dataclasses import replace

import pytest

from spectra_exp.routing.selection import SELECTIONS
from spectra_exp.training.execute import execute


@pytest.mark.parametrize("rule", ["topk", "quota"])
def test_a_run_whose_rule_makes_more_assignments_than_it_says_fails(planned, monkeypatch, rule) -> None:
    """In its first evaluation, or for a rule of training alone in its first step."""
    all_but_worst = lambda scores_NE, top_k, alpha: scores_NE > scores_NE.amin(1, keepdim=True)  # noqa: E731
    monkeypatch.setitem(SELECTIONS, rule, replace(SELECTIONS[rule], choose=all_but_worst))
    p = planned(f"selection={rule}", "trainer.max_steps=2")
    assert execute(p, "") == "failed"
    summary = p.folder.read_summary()
    assert "are not executed; declare its bound" in summary["error"] and summary["steps"] == 0
