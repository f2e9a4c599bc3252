"""The table of comparisons by document, and what the others say that their intervals are about."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_studies import given, make_study
from test_by_document import DOMAINS, leave_documents, leave_items

from spectra_exp.presentation.html import Fold
from spectra_exp.reporting.by_document import compare_by_document
from spectra_exp.reporting.declared import all_contrasts, study_tables
from spectra_exp.reporting.documents_table import FIRST_LOOK, documents_table
from spectra_exp.reporting.material import gather
from spectra_exp.reporting.report.grids import table_details
from spectra_exp.reporting.tables.build import build_table
from spectra_exp.reporting.tables.significance import build_significance
from spectra_exp.reporting.tables.spec import Panel
from spectra_exp.reporting.tables.verdicts import SEEDS_ALONE
from spectra_exp.reporting.tables.write import write_table
from spectra_exp.runs.stored import stored_runs
from spectra_exp.studies.decide import Design


def figures(job):
    name, seed = given(job)["ablation"], job.experiment.seed
    noise = np.random.default_rng([len(name), seed]).normal(0, 0.01)
    return {"causal": name != "no_osr", "metrics": {"val_loss": 4.0 + 0.1 * seed + noise}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SPECTRA beside three ablations: one with documents under all seeds, one without any, one that is not causal."""
    outputs = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        make_study(
            outputs,
            "core",
            figures,
            ("seed=0..3", "osr=causal", "ablation=none,no_gru,no_ortho,no_osr"),
        )
    for number, run in enumerate(stored_runs(outputs / "runs")):
        if run.summary["ablation"] != "no_ortho":
            leave_documents(run.path, -0.1 if run.summary["ablation"] == "none" else 0.0, number + 1)
    return outputs


def made(world: Path):
    material = gather(world)
    study = material.studies["core"]
    sections = {"core": material.sections_of(study)[0]}
    return study, sections


def test_it_is_what_compare_says_of_the_same_runs(world: Path) -> None:
    study, sections = made(world)
    table = documents_table(all_contrasts([study]), sections)
    records = table.frame.to_dict("records")
    # The ablation without documents and the one whose losses are no evidence have no rows.
    assert len({r["comparison"] for r in records}) == 1 and "GRU" in records[0]["comparison"]
    assert [r["domain"] for r in records] == ["all", *DOMAINS]
    runs = sorted(stored_runs(world / "runs"), key=lambda run: run.summary["seed"])
    sides = ([run for run in runs if run.summary["ablation"] == name] for name in ("none", "no_gru"))
    expected = compare_by_document(*sides)
    for record, one in zip(records, expected.outcomes, strict=True):
        assert (record["difference"], record["ci_low"], record["p_holm"]) == (
            one.difference,
            one.ci_low,
            one.p_corrected,
        )
    assert records[0]["about"] == "these methods" and records[0]["seeds"] == 4
    assert records[0]["seed_low"] == expected.crossed.seed_low > records[0]["ci_low"]
    assert {r["domain"]: r["verdict"] for r in records}["code"] == "better"


def test_it_is_written_in_every_format_and_folded_in_the_report(world: Path, tmp_path: Path) -> None:
    study, sections = made(world)
    table = documents_table(all_contrasts([study]), sections)
    texts = {path.suffix: path.read_text() for path in write_table(table, tmp_path)}
    assert "val_loss_code" in (tmp_path / "documents_long.csv").read_text()
    assert "these methods" in (tmp_path / "documents.csv").read_text()
    assert "seeds alone" in texts[".md"] and "prose" in texts[".tex"]
    assert isinstance(table_details(table), Fold)


def test_one_seed_speaks_of_these_runs(world: Path) -> None:
    material = gather(world)
    runs = material.collected.runs
    runs.drop(runs.index[runs["seed"] != 0], inplace=True)
    sections, _ = material.sections_of(material.studies["core"])
    table = documents_table(all_contrasts([material.studies["core"]]), {"core": sections})
    assert set(table.frame["about"]) == {"these runs"} and set(table.frame["seeds"]) == {1}


def test_tables_of_seeds_say_that_they_are_about_this_text(world: Path) -> None:
    study, sections = made(world)
    significance = build_significance(all_contrasts([study]), sections)
    frame = significance.frame
    tested = frame[(frame["metric"] == "val_loss") & frame["p"].notna()]
    assert len(tested) and set(tested["about"]) == {"these methods, this text"}
    spec = next(spec for spec in study_tables(study) if spec.tested and "val_loss" in spec.tested)
    for table in (significance, build_table(spec, sections["core"])):
        assert any(SEEDS_ALONE in part.notes for part in table.parts)


@pytest.mark.parametrize("metric", ["val_loss", "val_loss_code", "val_accuracy"])
def test_nothing_that_later_tokens_would_improve_is_tested_of_a_model_that_sees_them(world: Path, metric: str) -> None:
    study, sections = made(world)
    spec = next(spec for spec in study_tables(study) if spec.tested)
    spec = replace(spec, panels=(Panel("", (metric,)),), tested=(metric,))
    rows = build_table(spec, sections["core"]).frame.set_index("ablation")
    assert rows[f"{metric}_test"].isna()["no_osr"] and not rows[f"{metric}_test"].isna()["no_gru"]


def test_with_looks_it_is_of_the_first_one(world: Path) -> None:
    study, sections = made(world)
    for row in sections["core"][0].rows:
        row.designs.add(Design("val_loss", 0.02, 10, 1))
    table = documents_table(all_contrasts([study]), sections)
    assert set(table.frame["seeds"]) == {3} and FIRST_LOOK in table.parts[0].notes


def test_downstream_tasks_stand_beside_item_by_item(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "outputs")
    for run in stored_runs(tmp_path / "outputs" / "runs"):
        leave_items(run, 0.25 if run.summary["ablation"] == "none" else 0.0)
    study, sections = made(tmp_path / "outputs")
    table = documents_table(all_contrasts([study]), sections)
    records = [r for r in table.frame.to_dict("records") if r["metric"].startswith("downstream")]
    # Also of the ablation without documents, not of the one that sees later tokens.
    assert len({r["comparison"] for r in records}) == 2 == len(records)
    assert {(r["metric"], r["domain"], r["documents"], r["tokens"]) for r in records} == {
        ("downstream_t", "t", 60, 300)
    }
    runs = sorted(stored_runs(tmp_path / "outputs" / "runs"), key=lambda run: run.summary["seed"])
    sides = ([run for run in runs if run.summary["ablation"] == name] for name in ("none", "no_gru"))
    (expected,) = compare_by_document(*sides, "downstream").outcomes
    (own,) = [r for r in records if "GRU" in r["comparison"]]
    assert (own["difference"], own["ci_low"], own["verdict"]) == (expected.difference, expected.ci_low, "better")
    assert [grid.title for grid in table.parts[0].grids] == ["By document", "Downstream tasks, by groups of items"]


def test_without_documents_there_is_no_table(world: Path) -> None:
    study, _ = made(world)
    assert documents_table(all_contrasts([study]), {"core": []}) is None
