"""A study whose seeds were added until decided: the tables use the looks' own p and interval, and mark them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_studies import given, make_study, no_data

from spectra_exp.archive.file import Archive, write_archive
from spectra_exp.archive.packing import pack_runs
from spectra_exp.cli import command
from spectra_exp.reporting.declared import all_contrasts, study_tables
from spectra_exp.reporting.material import gather
from spectra_exp.reporting.tables.build import build_table
from spectra_exp.reporting.tables.significance import build_significance
from spectra_exp.statistics.comparison import compare
from spectra_exp.statistics.looks import look
from spectra_exp.studies.decide import Design
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import make_jobs
from spectra_exp.studies.ledger import write_launch

DESIGN = Design("val_loss", 0.03, 10, 0)
# SPECTRA's ablation without its recurrence stopped after five, its full method went on to seven.
SEEDS = {"none": 7, "no_gru": 5}
NOISE = [0.0, 0.004, -0.003, 0.002, 0.001]


def figures(job):
    name, seed = given(job)["ablation"], job.experiment.seed
    if seed >= SEEDS[name]:
        return None
    shift = 0.011 + NOISE[seed] if name == "no_gru" else 0.0
    return {"metrics": {"val_loss": 4.0 + 0.1 * seed + shift, "load_cv": 0.2 + shift}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("added")
    typed = ("seed=0..6", "osr=causal", "ablation=none,no_gru")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        jobs = make_study(outputs, "core", figures, typed)
        for path in (outputs / "studies").iterdir():
            path.unlink()
        made = [job for job in jobs if job.experiment.seed < SEEDS[given(job)["ablation"]]]
        with no_data():
            write_launch(load_study("core"), [word for word in typed if "seed" not in word], made, DESIGN)
    return outputs


def sections(material):
    return material.sections_of(material.studies["core"])[0]


def records(material):
    study = material.studies["core"]
    table = build_significance(all_contrasts([study]), {"core": sections(material)})
    return table, {r["metric"]: r for r in table.frame.to_dict("records") if r["n_pairs"]}


def test_table_13_uses_the_interval_that_holds_at_all_looks(world: Path) -> None:
    table, by = records(gather(world))
    pairs = [-(0.011 + noise) for noise in NOISE]
    seen, loss = look(pairs, 10, 0.03), by["val_loss"]
    assert (loss["p"], loss["ci_low"], loss["ci_high"]) == (seen.p, pytest.approx(seen.low), pytest.approx(seen.high))
    assert (loss["margin"], loss["equivalent_p"], loss["looks"]) == (0.03, seen.equivalent_p, "3, 5 of 10")
    fixed = compare(dict(enumerate(pairs)), dict.fromkeys(range(5), 0.0))
    assert loss["p"] > fixed.p and loss["ci_high"] > fixed.ci_high and loss["n_pairs"] == 5
    # Within the design's region, not that of the figure.
    assert loss["verdict"] == "equivalent (lower)" and loss["detectable"] is None
    assert loss["p_below"] + loss["p_within"] + loss["p_above"] == pytest.approx(1)
    (part,) = [part for part in table.parts if "seeds added until decided" in part.grids[0].title]
    assert part.grids[0].rows[0][3] == "5*" and any(note.startswith("n*:") for note in part.notes)


def test_other_figures_are_paired_and_say_why_there_are_so_many_seeds(world: Path) -> None:
    _, by = records(gather(world))
    cv = by["load_cv"]
    assert cv["n_pairs"] == 5 and cv["test"] == "paired t" and cv["looks"] == "3, 5 of 10"
    assert cv["note"] == "seeds were added until val_loss was decided"
    # Its seeds are as many as the loss asked for: a test of five seeds would claim too much. Its region is its own.
    seen = look([-(0.011 + noise) for noise in NOISE], 10, 0.02)
    assert (cv["p"], cv["margin"], cv["equivalent_p"]) == (seen.p, 0.02, seen.equivalent_p)
    # They are a family of their own.
    assert cv["family"] != by["val_loss"]["family"] and by["val_loss"]["p_holm"] == by["val_loss"]["p"]


def test_the_table_of_the_study_uses_the_same_p(world: Path) -> None:
    material = gather(world)
    spec = next(spec for spec in study_tables(material.studies["core"]) if "val_loss" in getattr(spec, "tested", ()))
    frame = build_table(spec, sections(material)).frame
    (row,) = frame[frame["ablation"] == "no_gru"].to_dict("records")
    assert row["val_loss_p"] == look([0.011 + noise for noise in NOISE], 10, 0.03).p


def test_other_studies_and_the_closing_sentence_know_of_it(world: Path) -> None:
    material = gather(world)
    equal = material.sections_of(material.studies["recurrence"])[0]
    assert any(row.designs == {DESIGN} and row.runs for section in equal for row in section.rows)
    (own,) = material.own
    a, b = own.rows
    assert own.compare(a, b, "val_loss").sequential.looks == (3, 5)


def test_a_study_that_was_launched_with_its_own_seeds_has_those(world: Path) -> None:
    with no_data(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(world))
        study = load_study("recurrence")
        path = write_launch(study, ["seed=0..2"], make_jobs(study_jobs(study, ["seed=0..2", "osr=causal"])))
    try:
        sections = gather(world).sections_of(study)[0]
        assert any(row.runs for section in sections for row in section.rows)
        assert not any(row.designs for section in sections for row in section.rows)
    finally:
        path.unlink()


def test_an_archive_keeps_the_design(world: Path, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "kept.parquet")
    pack_runs(archive, world, (), ())
    write_archive(archive, archive.path)
    assert records(gather(tmp_path, runs=[str(archive.path)]))[1]["val_loss"]["looks"] == "3, 5 of 10"


def test_two_designs_over_the_same_rows_are_not_tested(world: Path, tmp_path: Path) -> None:
    path = next((world / "studies").iterdir())
    other = path.with_name("core-other.json")
    other.write_text(path.read_text().replace('"max_seeds": 10', '"max_seeds": 20'))
    try:
        table, _ = records(gather(world))
        (row,) = [r for r in table.frame.to_dict("records") if r["metric"] == "val_loss" and r["note"] != "n<3"]
        assert row["p"] is None and "several launch.until_decided" in row["note"]
    finally:
        other.unlink()


@pytest.mark.parametrize("bad", ['"most": 10', '"max_seeds": 2', '"max_seeds": 1000000000', '"max_seeds": "10"'])
def test_a_damaged_design_is_a_launch_that_is_left_out(world: Path, bad: str, capsys) -> None:
    path = next((world / "studies").iterdir())
    kept = path.read_text()
    path.write_text(kept.replace('"max_seeds": 10', bad))
    try:
        command(["study", "status", f"outputs={world}"])
        assert f"left out {path.name}" in capsys.readouterr().out
    finally:
        path.write_text(kept)
