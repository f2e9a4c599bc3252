"""The rows of a study: which cells they are, in which order, and which runs may be compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_studies import given, make_study

from spectra_exp.reporting.grid import Section, study_factors
from spectra_exp.reporting.material import gather
from spectra_exp.studies.definition import load_study


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    return tmp_path


def sections(outputs: Path, study: str) -> list[Section]:
    return gather(outputs).sections[study]


def test_a_study_that_was_never_launched_has_all_its_rows_empty(outputs: Path) -> None:
    (section,) = sections(outputs, "c_repulsion")
    assert [row.key["osr.repulsion_weight"] for row in section.rows] == ["0", "0.1", "0.3", "0.5", "0.8", "1"]
    assert all(not row.runs and not row.expected and not section.values(row, "val_loss") for row in section.rows)
    assert section.factors == ("router", "osr", "osr.repulsion_weight")


def test_rows_keep_the_order_of_the_file_whatever_was_typed(outputs: Path) -> None:
    make_study(outputs, "c_repulsion", lambda job: {}, ("seed=0", "osr.repulsion_weight=1,0.30,0"))
    make_study(outputs, "c_repulsion", lambda job: {}, ("seed=0", "osr.repulsion_weight=0.45"))
    (section,) = sections(outputs, "c_repulsion")
    assert [row.key["osr.repulsion_weight"] for row in section.rows] == ["0", "0.3", "1", "0.45"]
    assert all(row.runs.keys() == {0} for row in section.rows)
    assert section.find({"osr.repulsion_weight": "0.30"}) == [section.rows[1]]


def test_what_was_typed_beside_the_file_is_a_section_of_its_own(outputs: Path) -> None:
    make_study(outputs, "d_sharpness", lambda job: {}, ("seed=0",))
    make_study(outputs, "d_sharpness", lambda job: {}, ("seed=0..1", "trainer.max_steps=7", "logger.progress=false"))
    plain, short = sections(outputs, "d_sharpness")
    assert (plain.title, short.title) == ("as in its file", "trainer.max_steps=7")
    assert {len(row.runs) for row in plain.rows} == {1} and {len(row.runs) for row in short.rows} == {2}
    runs = [{run for row in section.rows for run in row.runs.values()} for section in (plain, short)]
    assert not runs[0] & runs[1]


def test_later_launches_add_seeds_to_the_same_rows(outputs: Path) -> None:
    for seeds in ("seed=0", "seed=1..2"):
        make_study(outputs, "a_quota", lambda job: {}, (seeds,))
    (section,) = sections(outputs, "a_quota")
    assert [sorted(row.runs) for row in section.rows] == [[0, 1, 2]] * 5


def test_both_rules_stand_in_one_section_and_one_run_in_two_rows(outputs: Path) -> None:
    make_study(outputs, "core", lambda job: {}, ("seed=0", "ablation=none,no_quota,no_all,cumulative_1,cumulative_5"))
    make_study(outputs, "core", lambda job: {}, ("seed=0", "osr=causal", "ablation=none,no_all,cumulative_1"))
    (section,) = sections(outputs, "core")
    labels = [row.label for row in section.rows]
    assert labels[0] == "SPECTRA (paper)" and "SPECTRA (causal)" in labels
    (no_all,) = section.find({"ablation": "no_all", "osr": "paper"})
    (first_rung,) = section.find({"ablation": "cumulative_1", "osr": "paper"})
    assert no_all.runs == first_rung.runs and no_all is not first_rung
    (quota,) = section.find({"ablation": "no_quota"})
    (fifth,) = section.find({"ablation": "cumulative_5"})
    assert quota.runs == fifth.runs


def test_methods_come_first_among_the_factors() -> None:
    assert study_factors(load_study("scaling_experts")) == ("router", "osr", "baseline", "model.num_experts")
    assert study_factors(load_study("core")) == ("router", "osr", "ablation")


def test_a_run_that_is_not_finished_or_not_finite_has_no_value(outputs: Path) -> None:
    def figures(job):
        weight = given(job)["osr.repulsion_weight"]
        return {"0": None, "0.1": {"metrics": {"load_cv": math.nan}}}.get(weight, {})

    make_study(outputs, "c_repulsion", figures, ("seed=0..2",))
    (section,) = sections(outputs, "c_repulsion")
    missing, odd, good = section.rows[:3]
    assert not missing.runs and sorted(missing.expected) == [0, 1, 2]
    assert section.values(odd, "load_cv") == {} and sorted(section.values(odd, "val_loss")) == [0, 1, 2]
    assert sorted(section.values(good, "load_cv")) == [0, 1, 2]
    assert section.compare(good, odd, "load_cv").p is None


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"fingerprints": {"data": "other"}}, "other data at seed 1"),
        ({"fingerprints": {"evaluation": "other"}}, "other evaluation at seed 1"),
        ({"fingerprints": {"batches": "other"}}, "other batches at seed 1"),
        ({"max_steps": 77}, "other max steps at seed 1"),
        ({"initial_weights": {"embed": "2048x128:other"}}, "other initial weights (embed) at seed 1"),
        ({"initial_weights": {"embed": "9x9:other"}}, None),
    ],
)
def test_runs_that_may_not_be_compared_are_not(outputs: Path, changes: dict, reason: str | None) -> None:
    def figures(job):
        odd = given(job)["osr.repulsion_weight"] == "1" and job.experiment.seed == 1
        return {"metrics": {"load_cv": 0.1 + job.experiment.seed * 0.013}} | (dict(changes) if odd else {})

    make_study(outputs, "c_repulsion", figures, ("seed=0..3",))
    (section,) = sections(outputs, "c_repulsion")
    fair, other, odd = section.rows[0], section.rows[1], section.rows[-1]
    assert section.pair_problem(fair, other) is None
    assert section.pair_problem(fair, odd) == reason
    found = section.compare(fair, odd, "val_loss")
    assert (found.note, found.difference) == ((reason, None) if reason else ("zero variance", 0.0))


def test_gap_closure_is_the_share_of_the_way_from_switch_to_dense(outputs: Path) -> None:
    losses = {"switch_top2": 5.0, "dense": 4.0, "hash": 5.5, None: 4.25}

    def figures(job):
        return {"metrics": {"val_loss": losses.get(given(job).get("baseline"), 4.5) + job.experiment.seed}}

    make_study(outputs, "baselines", figures, ("seed=0..1", "baseline=switch_top2,dense,hash"))
    (section,) = sections(outputs, "baselines")
    closed = {row.label: section.values(row, "gap_closure") for row in section.rows}
    assert closed == {"Switch top-2": {}, "Hash": {0: -0.5, 1: -0.5}, "Dense": {}}
    losses["dense"] = 5.0
    make_study(outputs, "baselines", figures, ("seed=0..1", "baseline=switch_top2,dense,hash"))
    (section,) = sections(outputs, "baselines")
    assert not any(section.values(row, "gap_closure") for row in section.rows)
