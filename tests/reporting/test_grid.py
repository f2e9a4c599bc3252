"""The rows of a study: which cells they are, in which order, and which runs may be compared."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_studies import given, make_study, no_data, write_run

from spectra_exp.config import resolved
from spectra_exp.config.resolved import Compositions
from spectra_exp.config.tree import project_root
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.material import gather
from spectra_exp.studies.cells import StudyCells, study_factors
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.job import make_jobs


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


def test_the_seeds_of_a_cell_are_placed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study("c_repulsion")
    cells = StudyCells(study, Compositions())
    found = cells.composed(["router=spectra", "osr=paper", "osr.repulsion_weight=0.7", "trainer.max_steps=9"])
    (place,) = cells.places(found)
    assert dict(place.key)["osr.repulsion_weight"] == 0.7 and place.context == ("trainer.max_steps=9",)
    monkeypatch.delattr(StudyCells, "_nearest")
    assert cells.places(replace(found)) == [place]
    with pytest.raises(AttributeError):
        cells.places(replace(found, values=found.values | {"trainer.max_steps": 8}))


def test_a_configuration_beside_its_study_stands_in_one_row() -> None:
    study = load_study("baselines")
    cells = StudyCells(study, Compositions())
    # model.equal_to is left out at its default, and osr=causal is the default of router=spectra.
    for line, wanted in (
        (["baseline=switch_top2"], {"baseline": "switch_top2"}),
        (["baseline=switch_wide"], {"baseline": "switch_wide"}),
        (["baseline=switch_wide_flops"], {"baseline": "switch_wide_flops"}),
        (["router=spectra", "osr=causal"], {"router": "spectra", "osr": "causal"}),
        (["router=temperature"], {"router": "temperature"}),
    ):
        (place,) = cells.places(cells.composed([*line, "trainer.max_steps=9", "data.train_words=30000"]))
        assert dict(place.key) == wanted and place.context == ("data.train_words=30000", "trainer.max_steps=9")


def test_rows_keep_the_order_of_the_file_whatever_was_typed(outputs: Path) -> None:
    make_study(outputs, "c_repulsion", lambda job: {}, ("seed=0", "osr.repulsion_weight=1,0.30,0"))
    make_study(outputs, "c_repulsion", lambda job: {}, ("seed=0", "osr.repulsion_weight=0.45"))
    (section,) = sections(outputs, "c_repulsion")
    assert [row.key["osr.repulsion_weight"] for row in section.rows] == ["0", "0.3", "1", "0.45"]
    assert all(row.runs.keys() == {0} for row in section.rows)
    assert section.find({"osr.repulsion_weight": 0.30}) == [section.rows[1]]


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


def hand_made(line: str) -> None:
    """A completed run of what was typed, with nothing launched."""
    with no_data():
        (job,) = make_jobs([line.split()])
        write_run(job, {}, curves=False)


def by_label(section: Section) -> dict[str, list[int]]:
    return {row.label: sorted(row.runs) for row in section.rows if row.runs}


def test_a_run_stands_where_its_values_are_however_it_was_asked_for(outputs: Path) -> None:
    """no_gru by its two settings; 3e-1 for 0.3; a rung that is another ablation's configuration."""
    hand_made("study=core osr=paper router.sequence=linear router.carry=none seed=0")
    hand_made("study=core osr=paper ablation=cumulative_1 seed=0")
    hand_made("study=c_repulsion osr=paper osr.repulsion_weight=3e-1 seed=7")
    (core,) = sections(outputs, "core")
    assert by_label(core) == {
        "SPECTRA (paper) − GRU": [0],
        "SPECTRA (paper) − All": [0],
        "SPECTRA (paper) 1 Switch-style": [0],
    }
    (repulsion,) = sections(outputs, "c_repulsion")
    assert by_label(repulsion) == {"SPECTRA (paper), repulsion_weight 0.3": [7]}


def test_what_differs_from_the_file_makes_the_section_by_options_where_they_say_it(outputs: Path) -> None:
    hand_made("study=c_repulsion osr=paper osr.repulsion_weight=0.3 seed=0 debug=smoke")
    hand_made("study=c_repulsion osr=paper osr.repulsion_weight=0.3 seed=0 model=exp10 optim.learning_rate=1e-3")
    hand_made("study=c_repulsion osr=causal osr.repulsion_weight=0.2 seed=0")
    found = {section.title: by_label(section) for section in sections(outputs, "c_repulsion")}
    own = {"SPECTRA (paper), repulsion_weight 0.3": [0]}
    assert found == {
        "as in its file": {"SPECTRA (causal), repulsion_weight 0.2": [0]},
        "debug=smoke": own,
        "model=exp10 optim.learning_rate=0.001": own,
    }


def test_a_study_that_was_never_launched_has_the_runs_that_are_its_cells(outputs: Path) -> None:
    hand_made("study=other osr=paper seed=3")
    hand_made("study=other osr=paper seed=9")
    (section,) = sections(outputs, "core")
    assert by_label(section) == {"SPECTRA (paper)": [3]} and len(section.rows) == 14
    # Once launched it has what was asked for: other seeds would make pairs of its rows incomplete.
    make_study(outputs, "core", lambda job: {}, ("seed=0", "ablation=none,no_gru"))
    (section,) = sections(outputs, "core")
    assert by_label(section) == {"SPECTRA (paper)": [0], "SPECTRA (paper) − GRU": [0]} and len(section.rows) == 2


def test_rows_are_the_same_without_what_was_launched(outputs: Path) -> None:
    make_study(outputs, "scaling_experts", lambda job: {}, ("seed=0..1", "osr=causal", "trainer.max_steps=9"))
    (before,) = sections(outputs, "scaling_experts")
    shutil.rmtree(outputs / "studies")
    after = next(s for s in sections(outputs, "scaling_experts") if s.context)
    assert after.title == before.title == "trainer.max_steps=9" and by_label(after) == by_label(before)
    assert [row.values for row in after.rows] == [row.values for row in before.rows]


def test_a_run_without_a_readable_configuration_stands_with_its_cell(outputs: Path) -> None:
    jobs = make_study(outputs, "c_repulsion", lambda job: {}, ("seed=0..1", "osr.repulsion_weight=0,0.3"))
    for job in jobs[:3]:
        job.planned.folder.config.write_text("")
    (section,) = sections(outputs, "c_repulsion")
    assert [sorted(row.runs) for row in section.rows] == [[0, 1], [0, 1]]


def test_the_longer_run_of_the_best_constant_is_the_row_of_its_option(outputs: Path) -> None:
    def figures(job):
        return {"metrics": {"val_loss": 4.0 if given(job)["temperature"] == "t2_0" else 5.0}}

    make_study(outputs, "temperature", figures, ("seed=0",))
    make_study(outputs, "temperature", figures, ("seed=0",))
    (section,) = sections(outputs, "temperature")
    (best,) = section.find({"temperature": "best_long"})
    assert section.run(best, 0)["max_steps"] == 500 and all(row.runs for row in section.rows)


def test_cells_are_composed_once_for_all_processes(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_study(outputs, "d_sharpness", lambda job: {}, ("seed=0",))
    before = by_label(*sections(outputs, "d_sharpness"))
    monkeypatch.setattr(resolved, "_composed", lambda *key: pytest.fail(f"composed again: {key}"))
    assert by_label(*sections(outputs, "d_sharpness")) == before
    monkeypatch.undo()
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(outputs))
    (outputs / "cache" / "compositions.json").write_text("{")
    assert by_label(*sections(outputs, "d_sharpness")) == before


def test_a_change_in_conf_composes_again_what_is_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(project_root() / "conf", tmp_path / "conf")
    monkeypatch.setenv("SPECTRA_ROOT", str(tmp_path))
    lines = [["ablation=no_gru"], ["ablation=no_ortho"], ["model.num_experts=4"], ["ablation=mine"]]
    kept = Compositions(tmp_path / "kept.json", "1")
    before = [kept(line) for line in lines]
    assert before[3] is None
    kept.save()

    def composed_again() -> list[bool]:
        resolved._option_texts.cache_clear()
        made = Compositions(tmp_path / "kept.json", "1")
        with monkeypatch.context() as patch:
            patch.setattr(resolved, "_composed", lambda line, root: "again")
            return [made(line) == "again" for line in lines]

    assert composed_again() == [False] * 4
    changed = tmp_path / "conf" / "ablation" / "no_gru.yaml"
    changed.write_text(changed.read_text().replace("sequence: linear", "sequence: gru"))
    assert composed_again() == [True, False, False, True]
    (tmp_path / "conf" / "model" / "base.yaml").write_text("defaults: [schema, _self_]\ntop_k: 1\n")
    (tmp_path / "conf" / "model" / "tiny.yaml").write_text("defaults: [base, _self_]\n")
    assert composed_again() == [True] * 4


def test_an_override_that_is_no_longer_one_is_named(outputs: Path) -> None:
    make_study(outputs, "d_sharpness", lambda job: None, ("seed=0",))
    (launch,) = (outputs / "studies").glob("*.json")
    launch.write_text(launch.read_text().replace("router.entropy_coef=0.1", "router.gone=0.1"))
    material = gather(outputs)
    (section,) = material.sections["d_sharpness"]
    assert len(section.rows) == 4
    (line,) = material.collected.skipped_launches
    assert line.startswith("d_sharpness: ") and "router.gone=0.1" in line and line.endswith("cannot be composed")
