"""The command that draws: what is missing or damaged is named, the rest is drawn, the same runs give the same bytes."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_studies import given, make_study

from spectra_exp.presentation.style import COLUMN, DOUBLE
from spectra_exp.reporting.declared import all_figures
from spectra_exp.reporting.figures import make
from spectra_exp.reporting.figures.make import named_sections
from spectra_exp.reporting.figures.spec import FigureSpec
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.make_figures import main
from spectra_exp.reporting.material import gather
from spectra_exp.runs.history import History
from spectra_exp.runs.routing_files import snapshot_path
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.intervals import mean_interval
from spectra_exp.studies.definition import load_study, study_files

FEW = "baseline=switch_top2,dense"

FIGURES = [spec for spec in all_figures(map(load_study, study_files())) if isinstance(spec, FigureSpec)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_study(folder, "baselines", lambda job: {}, ("seed=0..1", FEW), curves=True)
        yield folder


@pytest.fixture
def outputs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to damage."""
    shutil.copytree(world, tmp_path / "outputs")
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def draw(outputs: Path, *arguments: str) -> int:
    return main([f"outputs={outputs}", *arguments])


def run_of(outputs: Path, baseline: str, seed: int) -> Path:
    section = gather(outputs).sections["baselines"][0]
    return outputs / "runs" / section.find({"baseline": baseline})[0].runs[seed]


def files(outputs: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((outputs / "figures").iterdir())}


def test_what_has_no_data_is_named_with_its_command_and_not_written(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(outputs, "only=pareto,sweep_e,summary_report") == 0
    assert sorted(files(outputs)) == ["pareto.md", "pareto.pdf", "pareto.png"]
    error = capsys.readouterr().err
    assert "sweep_e not written: no finished run; fill it with: make sweep-e\n" in error
    assert "summary_report not written: no finished run; fill it with: make temperature\n" in error


def test_all_gaps_are_listed_when_all_is_drawn(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(spec for spec in FIGURES if spec.name in ("pareto", "sweep_c"))
    monkeypatch.setattr("spectra_exp.reporting.make_figures.all_figures", lambda studies: few)
    assert draw(outputs) == 0
    with open(outputs / "figures" / "missing.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["table"] for row in rows if row["row"] == "whole figure"} == {"sweep_c"}
    assert {row["command"] for row in rows if row["table"] == "sweep_c"} == {"make sweep-c"}


def test_what_was_typed_makes_a_figure_of_its_own(outputs: Path) -> None:
    make_study(outputs, "baselines", lambda job: {}, ("seed=0", FEW, "trainer.max_steps=50"), curves=True)
    assert draw(outputs, "only=figure05_routing_entropy") == 0
    names = {name for name in files(outputs) if name.endswith(".png")}
    assert names == {"figure05_routing_entropy.png", "figure05_routing_entropy--trainer.max_steps=50.png"}
    short = files(outputs)["figure05_routing_entropy--trainer.max_steps=50.md"].decode()
    assert "One seed (n = 1): no band. Runs with trainer.max_steps=50." in short
    assert "n = 2 seeds; band" in files(outputs)["figure05_routing_entropy.md"].decode()


@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_history_is_named_and_the_rest_is_drawn(
    outputs: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    damaged = run_of(outputs, "switch_top2", 0) / "history.parquet"
    damaged.write_bytes(damaged.read_bytes()[:size])
    (spec,) = [spec for spec in FIGURES if spec.name == "figure05_routing_entropy"]
    section = gather(outputs).sections["baselines"][0]
    page = spec.compose(section, section.rows)
    seeds = {line.label: {point.n for point in line.points} for line in page.panels[0].lines}
    assert seeds == {"Switch top-2 (n = 1)": {1}, "Dense": {2}}
    capsys.readouterr()
    assert draw(outputs, "only=figure05_routing_entropy") == 0
    assert f"left out {damaged}: not readable as a run's history" in capsys.readouterr().err


def test_a_truncated_snapshot_is_named_and_the_rest_is_drawn(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = snapshot_path(run_of(outputs, "switch_top2", 1) / "routing", 125)
    damaged.write_bytes(damaged.read_bytes()[:300])
    assert draw(outputs, "only=usage_histograms") == 0
    assert f"left out {damaged}: not a whole routing snapshot" in capsys.readouterr().err
    assert len(StoredRun(damaged.parents[1]).snapshots) == 5


def test_runs_without_history_give_no_figure_but_the_command_to_run_them_again(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (outputs / "runs").glob("*/history.parquet"):
        path.unlink()
    assert draw(outputs, "only=figure05_routing_entropy,pareto") == 0
    assert {name.partition(".")[0] for name in files(outputs)} == {"pareto"}
    error = capsys.readouterr().err
    assert "no usable history.parquet in its finished runs; fill it with: make baselines force=true" in error


def test_values_that_are_not_finite_are_left_out_and_said(outputs: Path) -> None:
    path = run_of(outputs, "switch_top2", 0) / "history.parquet"
    found = History.load(path)
    found.add(125, 0.5, "validation", {"routing_entropy": math.nan})
    found.add(250, 1.0, "validation", {"routing_entropy": math.inf})
    found.save(path)
    section = gather(outputs).sections["baselines"][0]
    row = section.find({"baseline": "switch_top2"})[0]
    (spec,) = [spec for spec in FIGURES if spec.name == "figure05_routing_entropy"]
    page = spec.compose(section, section.rows)
    line = next(line for line in page.panels[0].lines if line.label.startswith("Switch"))
    other = section.stored(row)[1].curve("validation", "routing_entropy")
    assert dict(zip(line.x, line.points, strict=True))[125] == mean_interval([other[125]])
    assert [point.n for point in line.points] == [2, 2, 2, 1, 2, 1]
    assert line.label == "Switch top-2 (n = 1–2)"
    assert "Switch top-2, seed 0: 2 values of routing_entropy not finite or out of range, left out" in page.remarks


def test_a_curve_without_a_finite_value_is_absent_and_named(outputs: Path) -> None:
    for seed in (0, 1):
        path = run_of(outputs, "switch_top2", seed) / "history.parquet"
        found = History.load(path)
        for step in (0, 25, 62, 125, 188, 250):
            found.add(step, step / 250, "validation", {"routing_entropy": math.nan})
        found.save(path)
    section = gather(outputs).sections["baselines"][0]
    (spec,) = [spec for spec in FIGURES if spec.name == "figure05_routing_entropy"]
    page = spec.compose(section, section.rows)
    assert [line.label for line in page.panels[0].lines] == ["Dense"]
    assert page.absent == {"Switch top-2": "routing_entropy"}


def test_a_figure_that_todays_runs_no_longer_give_is_removed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = outputs / "figures"
    folder.mkdir()
    old = ("figure05_routing_entropy.png", "figure05_routing_entropy--seed=9.pdf", "pareto.md", "figure05.png")
    for name in old:
        (folder / name).write_text("old", encoding="utf-8")
    for path in (outputs / "runs").glob("*/history.parquet"):
        path.unlink()
    capsys.readouterr()
    assert draw(outputs, "only=figure05_routing_entropy") == 1
    assert set(files(outputs)) == {"pareto.md", "figure05.png"}
    assert "figure05_routing_entropy.png: no finished run gives it" in capsys.readouterr().err


def test_twice_gives_the_same_bytes_whatever_the_readers_settings(outputs: Path, tmp_path: Path) -> None:
    names = ["usage_histograms", "pareto"]
    assert draw(outputs, f"only={','.join(names)}") == 0
    first = files(outputs)
    shutil.rmtree(outputs / "figures")
    settings = "font.size: 20\nsavefig.dpi: 30\nxtick.direction: in\naxes.facecolor: red\n"
    (tmp_path / "matplotlibrc").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "spectra_exp", "figures", f"outputs={outputs}", f"only={','.join(names)}"]
    own = {"MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "7", "MPLBACKEND": "module://of_a_notebook.elsewhere"}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
    assert answer.returncode == 0, answer.stderr
    assert files(outputs) == first and len(first) == 6
    assert all(not re.search(rb"/CreationDate|/ModDate", content) for content in first.values())


def test_pictures_have_the_widths_of_a_page_and_enough_dots(outputs: Path) -> None:
    assert draw(outputs, "only=pareto,usage_histograms") == 0
    for name, inches in (("pareto.png", COLUMN), ("usage_histograms.png", DOUBLE)):
        content = files(outputs)[name]
        width = struct.unpack(">I", content[16:20])[0]
        place = content.index(b"pHYs") + 4
        dots_per_inch = struct.unpack(">I", content[place : place + 4])[0] * 0.0254
        assert dots_per_inch >= 200 and width / dots_per_inch == pytest.approx(inches, rel=0.01)


def test_planted_fault_a_date_in_the_file_is_seen(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(make.METADATA, "pdf", {})
    assert draw(outputs, "only=pareto") == 0
    assert re.search(rb"/CreationDate", files(outputs)["pareto.pdf"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["only=paretto"], "error: only: unknown name 'paretto'; did you mean 'pareto'? valid: balance_trends, "),
        (["study=nothing"], "error: study: unknown name 'nothing'; valid: a_quota, aa, b_sinkhorn, "),
    ],
)
def test_an_unknown_name_lists_the_known(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert draw(outputs, *arguments) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_study_without_runs_and_no_runs_at_all(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(outputs, "study=d_sharpness") == 1
    assert "sweep_d not written: no finished run; fill it with: make sweep-d" in capsys.readouterr().err
    assert draw(tmp_path / "nowhere") == 1
    assert capsys.readouterr().err.endswith("no completed run to draw; train one: python train.py\n")


def test_runs_on_other_data_are_said_and_have_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))

    def other(job: Any) -> dict[str, Any]:
        return {"fingerprints": {"data": "x" * 16}} if given(job).get("baseline") == "dense" else {}

    make_study(tmp_path, "baselines", other, ("seed=0..1", FEW), curves=True)
    section = gather(tmp_path).sections["baselines"][0]
    (spec,) = [spec for spec in FIGURES if spec.name == "loss_curves_methods"]
    page = spec.compose(section, section.rows)
    assert [line.label for line in page.panels[0].lines] == ["Switch top-2", "Dense"]
    assert page.panels[2].lines == ()
    assert "No difference of Dense from Switch top-2: other data at seed 0." in page.remarks
    assert any(line.startswith("Rows differ in data fingerprint (dddddddd, xxxxxxxx)") for line in page.remarks)


def test_figures_are_declared_once_and_matplotlib_is_loaded_late() -> None:
    names = [spec.name for spec in FIGURES]
    assert len(names) == len(set(names))
    wanted = {
        "temperature_ablation_comprehensive",
        "routing_dynamics",
        "expert_utilization",
        "expert_utilization_analysis",
        "entropy_analysis",
        "schedule_comparison",
        *(f"sweep_{letter}" for letter in "abcde"),
    }
    assert wanted <= set(names)
    code = "import sys, spectra_exp.reporting.make_figures; print('matplotlib' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_reports_are_strict_json_with_the_sections_apart(outputs: Path) -> None:
    make_study(outputs, "temperature", lambda job: {}, ("seed=0..1", "temperature=t1_0,linear"), curves=True)
    make_study(outputs, "temperature", lambda job: {}, ("seed=0", "temperature=t1_0", "trainer.max_steps=50"))
    assert draw(outputs, "only=summary_report,specialization_report") == 0
    for name in ("summary_report", "specialization_report"):
        content = json.loads((outputs / "figures" / f"{name}.json").read_text(encoding="utf-8"))
        assert [section["section"] for section in content["sections"]] == ["as in its file", "trainer.max_steps=50"]
    (row,) = [row for row in content["sections"][1]["rows"] if row["seeds"]]
    assert row["metrics"]["load_gini"]["n"] == 1 and row["metrics"]["load_gini"]["low"] is None
    assert row["share_variance"] is None and row["shares_by_rank"] == []


def test_much_that_was_typed_still_gives_names_that_a_file_system_takes() -> None:
    def section(last: str) -> Section:
        return Section(
            load_study("core"), tuple(f"data.some_long_key={'x' * 20}{i}" for i in range(20)) + (last,), (), [], None
        )

    names = list(named_sections("figure", [section("seed_of=1"), section("seed_of=2")]))
    assert len(set(names)) == 2 and all(len(f"{name}.pdf.tmp") < 200 for name in names)
