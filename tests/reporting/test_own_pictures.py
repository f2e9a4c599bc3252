"""Runs of no study that there is: their pictures, their sentence, and the report that begins with both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from figure_world import expected
from made_studies import given, make_study
from report_world import Page, change

from spectra_exp.config.tree import project_root
from spectra_exp.reporting import make_figures, make_report, make_tables
from spectra_exp.reporting.figures.own import MOST, MOST_GROUPS, OWN, some_groups, some_rows
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import gather
from spectra_exp.reporting.sentence import sentence_of

ORDER = ("pictures", "table", "runs", "metrics", "tables", "hypotheses", "missing")


def figures(job: Any) -> dict[str, Any]:
    """SPECTRA's load is surely more even; its loss is not told apart."""
    spectra, seed = not given(job).get("baseline"), job.experiment.seed
    loss = 4.0 + 0.1 * seed + (0.05 * (-1) ** seed if spectra else 0.0)
    return {"metrics": {"val_loss": loss, "load_cv": (0.1 if spectra else 0.5) + 0.003 * seed * spectra}}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three methods over three seeds, asked for by a study that has no file, and not by a launch."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        seeds = ("seed=0..2", "trainer.max_steps=50")
        make_study(folder, "baselines", figures, (*seeds, "baseline=switch_top2"), curves=True)
        make_study(folder, "core", figures, (*seeds, "osr=causal", "ablation=none,no_gru"), curves=True)
        for run in (folder / "runs").iterdir():
            change(run, studies=["demo"])
        shutil.rmtree(folder / "studies")
        yield folder


def test_every_picture_is_drawn_and_a_study_never_launched_is_a_line(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_figures.main([f"outputs={outputs}"]) == 0
    told = capsys.readouterr()
    made = {path.stem for path in (outputs / "figures").glob("*.png")}
    assert made == {spec.name for spec in OWN} and len(made) >= 6
    assert f"a picture of these runs: {outputs / 'figures' / 'runs_loss.png'}" in told.out
    assert f" figures in {outputs / 'figures'} as" in told.out and "missing.csv" in told.out
    lines = told.err.splitlines()
    assert all(" not written: no finished run; fill it with: " in line for line in lines)
    assert len({line.rpartition(": ")[2] for line in lines}) == len(lines) > 3
    assert make_figures.main([f"outputs={outputs}", "study=demo", "only=runs_loss"]) == 0
    assert (outputs / "figures" / "demo" / "runs_loss.png").is_file()
    said = capsys.readouterr().out
    assert f"1 figures in {outputs / 'figures' / 'demo'} as" in said and "missing.csv" not in said


def test_a_picture_holds_each_methods_mean_over_seeds(outputs: Path) -> None:
    (section,) = gather(outputs).own
    (spec,) = [spec for spec in OWN if spec.name == "runs_loss"]
    page = spec.compose(section, section.rows)
    lines = {line.label: line for line in page.panels[1].lines}
    assert set(lines) == {"SPECTRA (causal)", "SPECTRA (causal) − GRU", "Switch top-2"}
    assert len({line.mark.colour for line in lines.values()}) == 3
    for row in section.rows:
        wanted = expected(section, row, "validation", "val_loss")
        assert list(lines[row.label].points) == [wanted[step] for step in lines[row.label].x]


def test_the_sentence_says_what_the_comparison_gives(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (section,) = gather(outputs).own
    rows = {row.label: row for row in section.rows}
    test = section.compare(rows["SPECTRA (causal)"], rows["Switch top-2"], "load_cv")
    said = sentence_of([section])
    assert said.startswith("Over 3 seeds, SPECTRA (causal) against Switch top-2: validation loss 0.0")
    assert f"(95 % interval {test.ci_low:.4f} to {test.ci_high:.4f})." in said
    assert "which these seeds do not decide" in said and "load CV 0.3970 lower, which is better" in said
    assert make_tables.main([f"outputs={outputs}", "study=demo"]) == 0
    assert said in capsys.readouterr().out.splitlines()


def test_a_loss_that_saw_the_future_is_in_no_sentence(outputs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "outputs"
    shutil.copytree(outputs, copy)
    for run in (copy / "runs").glob("switch-*"):
        change(run, causal=False)
    said = sentence_of(gather(copy).own)
    assert "load CV" in said and "loss" not in said
    shutil.rmtree(copy / "runs")
    assert sentence_of(gather(copy).own) == ""


def test_the_report_begins_with_the_pictures_and_ends_with_what_is_missing(outputs: Path) -> None:
    assert make_report.main([f"outputs={outputs}", "study=demo"]) == 0
    page = Page((outputs / "report-demo" / "index.html").read_text(encoding="utf-8"))
    places = {name: page.source.index(f'<section id="{name}"') for name in ORDER}
    assert list(places) == sorted(places, key=places.__getitem__)
    first = page.source[places["pictures"] : places["table"]]
    assert first.count('class="chart"') == 2 + 3 and sentence_of(gather(outputs).own) in page.text
    for text in ("val_loss over training", "val_loss against load_cv", "Load by layer and rank of SPECTRA (causal)"):
        assert f'aria-label="{text}' in first
    for last in ("hypotheses", "missing"):
        assert "<details" in page.source[places[last] : places[last] + 600]
    assert "<details" not in page.source[places["table"] : places["runs"]].partition("</table>")[0]


def test_a_picture_has_room_for_some_rows(outputs: Path) -> None:
    (section,) = gather(outputs).own
    many = [Row({}, f"Method, value {i}", runs=dict(section.rows[0].runs)) for i in range(MOST + 3)]
    plain = Row({}, "Method", runs={0: section.rows[0].runs[0]})
    kept, said = some_rows([*many, plain])
    assert len(kept) == MOST and plain not in kept and said[0].startswith(f"{MOST} of {MOST + 4} rows")
    own = {row.label: row for row in section.rows}
    rivals = [Row({"baseline": f"b{i}"}, f"B{i}", runs=dict(section.rows[0].runs)) for i in range(MOST + 3)]
    kept, _ = some_rows([*own.values(), *rivals])
    assert own["SPECTRA (causal)"] in kept and own["Switch top-2"] in kept and own["SPECTRA (causal) − GRU"] not in kept
    wide = Section(None, (), (), many, section.collected)
    page = OWN[0].compose(wide, many)
    assert len(page.panels[0].lines) == MOST and any("rows shown" in note for note in page.footnotes)


def test_the_largest_groups_are_drawn(outputs: Path) -> None:
    (section,) = gather(outputs).own
    assert some_groups([section]) == ([section], [])
    kept, said = some_groups([section] * (MOST_GROUPS + 2))
    assert len(kept) == MOST_GROUPS and said[0].startswith(f"{MOST_GROUPS} of {MOST_GROUPS + 2} groups")


def test_the_demo_ends_with_table_picture_and_report() -> None:
    recipe = (project_root() / "Makefile").read_text().partition("\ndemo: setup")[2].partition("\n\n")[0]
    verbs = [line.split(" -m spectra_exp ")[1].split()[0] for line in recipe.splitlines() if " -m spectra_exp " in line]
    assert verbs == ["tables", "figures", "report"]
