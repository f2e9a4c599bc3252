"""A study is one file: from it follow its table, figure, part of the report, target and documentation."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_studies import given, make_study

from spectra_exp.config.tree import KINDS, project_root
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.reporting.declared import study_effects, study_figures, study_picture, study_tables
from spectra_exp.reporting.make_figures import main as figures
from spectra_exp.reporting.make_report import main as report
from spectra_exp.reporting.make_tables import main as tables
from spectra_exp.studies import definition
from spectra_exp.studies.definition import load_study, study_files
from spectra_exp.studies.page import studies_page

MINE = """
title: The width of routing vectors
question: Does a wider routing vector pay?
hypothesis: It does not.
runs: {any: 3}
seeds: 0..2
reference: {router.dim: 16}
pictures:
  - {kind: curve, over: [router.dim], scale: log}
contrasts:
  - {method: {router.dim: 48}, against: {router.dim: [8, 16]}, family: against narrower, metrics: [val_loss]}
blocks:
  - settings: {router: spectra, osr: paper}
    grid:
      router.dim: [8, 16, 48]
"""

EFFECT = "{method: {router.dim: 8}, against: {a: 1}, metric: val_loss, tolerance: 0.1, source: s, figure: f"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's studies and one more."""
    for kind in KINDS:
        shutil.copytree(project_root() / kind, tmp_path / kind)
    (tmp_path / "sweeps" / "mine.yaml").write_text(MINE)
    monkeypatch.setattr(definition, "project_root", lambda: tmp_path)
    files = {kind: {path.stem: path for path in sorted((tmp_path / kind).iterdir())} for kind in KINDS}
    monkeypatch.setattr(definition, "named_files", files.__getitem__)
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path


def test_one_file_makes_a_study_with_all_that_follows(root: Path) -> None:
    outputs = root / "outputs"

    def loss(job) -> dict:
        return {"metrics": {"val_loss": 4 + float(given(job)["router.dim"]) / 100 + job.experiment.seed}}

    make_study(outputs, "mine", loss)
    assert tables(["--outputs", str(outputs), "--show", "mine"]) == 0
    with open(outputs / "tables" / "mine.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["router.dim"], row["n"]) for row in rows] == [("8", "3"), ("16", "3"), ("48", "3")]
    assert "against SPECTRA (paper), dim 16, Benjamini-Hochberg" in (outputs / "tables" / "mine.md").read_text()
    with open(outputs / "tables" / "table13_significance.csv", encoding="utf-8") as file:
        tests = [row for row in csv.DictReader(file) if row["family"] == "SPECTRA (paper) against narrower"]
    assert [row["comparison"].rpartition("dim ")[2] for row in tests] == ["8", "16"]
    assert {row["metric"] for row in tests} == {"val_loss"}
    assert figures(["--outputs", str(outputs), "--study", "mine"]) == 0
    assert {path.name for path in (outputs / "figures").iterdir()} == {"mine.png", "mine.pdf", "mine.md", "mine"}
    assert report(["--outputs", str(outputs), "--study", "mine"]) == 0
    page = (outputs / "report-mine" / "index.html").read_text()
    assert "The width of routing vectors" in page and "Does a wider routing vector pay?" in page
    for name in ("constraints.txt", "pyproject.toml"):
        (root / name).touch()
    command = ["make", "-n", "-f", str(project_root() / "Makefile"), *load_study("mine").command.split()[1:], "SEEDS=7"]
    dry = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert {"sweeps=mine", "seed=7"} <= set(dry.split())
    assert "## mine\n\nThe width of routing vectors. Does a wider" in studies_page()


def test_the_page_of_the_studies_is_that_of_their_files() -> None:
    """To make it again: make studies-page."""
    assert (project_root() / "docs" / "studies.md").read_text(encoding="utf-8") == studies_page()


@pytest.mark.parametrize("name", study_files())
def test_every_declaration_can_be_used(name: str) -> None:
    study = load_study(name)
    assert study_tables(study) and study.pictures
    cells = [cell for block in study.blocks for cell in block.cells()]
    for effect in study_effects(study):
        for wanted in filter(None, (effect.method, effect.against)):
            assert any(wanted.items() <= cell.items() for cell in cells)
    names = [spec.name for spec in study_figures(study)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pictures: [{kind: curv}]", "sweeps=mine pictures[0].kind: unknown name 'curv'; did you mean 'curve'?"),
        ("pictures: [{kind: heat, x: a}]", "sweeps=mine pictures[0]: without y, panels, metrics"),
        ("pictures: [{kind: curve, over: [a], scales: log}]", "did you mean 'scale'?"),
        (
            "pictures: [{kind: curve, over: [a], rules: al}]",
            "pictures[0].rules: unknown name 'al'; did you mean 'all'?",
        ),
        (
            "pictures: [{kind: training, curves: loses}]",
            "pictures[0].curves: unknown name 'loses'; did you mean 'losses",
        ),
        ("pictures: [{kind: stacked_usage, naming: by_row}]", "sweeps=mine pictures[0]: unknown name 'naming'"),
        (
            "tables: [{panels: [balence]}]",
            "sweeps=mine tables[0].panels: unknown name 'balence'; did you mean 'balance'",
        ),
        ("tables: [{correction: bonferoni}]", "sweeps=mine tables[0].correction: unknown name 'bonferoni'"),
        ("tables: [{refrence: {}}]", "did you mean 'reference'?"),
        (f"published: [{EFFECT}, claim: lowest}}]", "sweeps=mine published[0].claim: unknown name 'lowest'"),
        (f"published: [{EFFECT}, claim: lower}}]".replace("0.1", "0"), "published[0].tolerance: '0' is not a number"),
        (f"published: [{EFFECT}, claim: lower}}]".replace("{a: 1}", "chanse"), "did you mean 'chance'?"),
        ("published: [{method: {a: 1}}]", "sweeps=mine published[0]: without against, metric, claim, tolerance"),
        ("tables: 5", "mine.yaml tables: a list of mappings is expected"),
    ],
)
def test_a_wrong_declaration_is_named_with_what_is_right(root: Path, line: str, complaint: str) -> None:
    rest = MINE.replace("pictures:\n  - {kind: curve, over: [router.dim], scale: log}\n", "")
    (root / "sweeps" / "mine.yaml").write_text(f"{rest}{line}\n")
    with pytest.raises(ConfigError) as error:
        study = load_study("mine")
        study_tables(study), study_figures(study), study_effects(study)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_the_report_names_what_a_picture_lacks(root: Path) -> None:
    rest = MINE.replace("{kind: curve, over: [router.dim], scale: log}", "{kind: heat, y: router.dim}")
    (root / "sweeps" / "mine.yaml").write_text(rest)
    with pytest.raises(ConfigError, match=re.escape("sweeps=mine pictures[0]: without x, panels, metrics")):
        study_picture(load_study("mine"))
