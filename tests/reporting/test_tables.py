from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_runs import read_table, summary, write

from spectra_exp.reporting.collect import collect
from spectra_exp.reporting.make_tables import main
from spectra_exp.reporting.tables.long import LONG
from spectra_exp.runs import provenance

LOSSES = {0: 4.0, 1: 4.2, 2: 4.1}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for seed, loss in LOSSES.items():
        spectra = summary("spectra", seed, {"val_loss": loss, "load_cv": 0.1 + loss / 100, "extra": 1.0, "none": None})
        spectra |= {"metrics_training_rule": {"load_cv": 0.5}, "causal": False}
        write(tmp_path, spectra, summary("switch", seed, {"val_loss": loss + 0.1, "max_vio": 1.0}, studies=["b"]))
    return tmp_path


def _table(outputs: Path, *arguments: str) -> pd.DataFrame:
    assert main([f"outputs={outputs}", *arguments]) == 0
    study = [word.removeprefix("study=") for word in arguments if word.startswith("study=")]
    return read_table(outputs.joinpath("tables", *study), "routing_metrics").set_index("label")


def test_a_row_per_cell_with_the_seed_as_unit(outputs: Path) -> None:
    table = _table(outputs)
    assert list(table.index) == ["Spectra", "Switch"]
    row = table.loc["Spectra"]
    assert (row["n"], row["router"], row["stale"], row["pairing"]) == (3, "spectra", False, "ok")
    assert (row["causal"], row["causal_training"]) == (False, False)
    assert (row["active_parameters"], row["total_parameters"], row["flops_per_token"]) == (1_200_000, 2_500_000, 1.5e6)
    half = 4.302653 * 0.1 / math.sqrt(3)  # s of 4.0, 4.1, 4.2 is 0.1
    assert float(row["val_loss_mean"]) == pytest.approx(4.1)
    assert float(row["val_loss_ci_low"]) == pytest.approx(4.1 - half, abs=1e-6)
    assert float(row["val_loss_ci_high"]) == pytest.approx(4.1 + half, abs=1e-6)
    assert row["val_loss_n"] == 3 and row["val_loss"] == "4.100 ± 0.25"
    assert float(row["load_cv_floor"]) == 0.01
    assert float(row["load_cv_training_rule_mean"]) == 0.5


def test_missing_values_are_empty_cells(outputs: Path) -> None:
    table = _table(outputs)
    for column in ("max_vio", "max_vio_mean", "max_vio_ci_low", "max_vio_floor"):
        assert table.loc["Spectra", column] == ""
    # The long file has no row for what no run has.
    assert table.loc["Spectra", "max_vio_n"] == 0 and "none_mean" not in table


def test_the_declared_metrics_come_first_and_every_other_after_them(outputs: Path) -> None:
    _table(outputs)
    narrow, long = (pd.read_csv(outputs / "tables" / f"routing_metrics{end}.csv") for end in ("", "_long"))
    first = list(narrow.columns).index("val_loss")
    assert list(narrow.columns)[first : first + 3] == ["val_loss", "load_cv", "max_vio"] and "extra" not in narrow
    assert len(narrow.columns) <= 60 and len(long.columns) == len(LONG)
    own = list(dict.fromkeys(zip(long["metric"], long["rule"], strict=True)))
    assert own[:4] == [
        ("val_loss", "inference"),
        ("load_cv", "inference"),
        ("load_cv", "training"),
        ("extra", "inference"),
    ]


def test_a_name_that_a_spreadsheet_would_run_is_text(tmp_path: Path) -> None:
    label = "=cmd|'/C calc'!A0"
    write(tmp_path, summary("switch", 0, {"val_loss": 4.0, "=1+1": 2.0, "+x": 1.0, "-1|x": 3.0}, label=label))
    assert main([f"outputs={tmp_path}"]) == 0
    for file in (tmp_path / "tables").glob("*.csv"):
        with open(file, encoding="utf-8") as opened:
            cells = [cell for row in csv.reader(opened) for cell in row]
        assert not [c for c in cells if c[:1] in "=+@" and c], file
    long = pd.read_csv(tmp_path / "tables" / "routing_metrics_long.csv")
    assert {"'=1+1", "'+x", "'-1|x"} <= set(long["metric"]) and set(long["row"]) == {f"'{label}"}


def test_text_of_a_summary_is_no_markup_in_markdown(tmp_path: Path) -> None:
    label = "<script>alert(1)</script> | [a](http://x) `b`"
    write(tmp_path, summary("switch", 0, {"val_loss": 4.0}, label=label))
    assert main([f"outputs={tmp_path}"]) == 0
    text = (tmp_path / "tables" / "routing_metrics.md").read_text()
    assert "<script" not in text and "&lt;script>alert(1)&lt;/script> \\| [a\\](http://x) \\`b\\`" in text


def test_twice_gives_the_same_bytes_and_nothing_else(outputs: Path) -> None:
    def content() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (outputs / "tables").iterdir()}

    _table(outputs)
    first = content()
    _table(outputs)
    assert content() == first
    assert {"routing_metrics.csv", "routing_metrics.md", "routing_metrics.tex"} <= set(first)
    assert {"routing_metrics_long.csv", "missing.csv"} <= set(first)


def test_one_seed_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    write(tmp_path, summary("switch", 0, {"val_loss": 4.10234}))
    row = _table(tmp_path).loc["Switch"]
    assert (str(row["val_loss"]), row["val_loss_n"], row["val_loss_ci_low"]) == ("4.102", 1, "")


def test_two_runs_of_one_seed_count_once_and_the_second_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = summary("switch", 0, {"val_loss": 5.0}, run_id="switch-s0-22222222")
    write(tmp_path, summary("switch", 0, {"val_loss": 3.0}), twice, summary("switch", 1, {"val_loss": 3.0}))
    row = _table(tmp_path).loc["Switch"]
    assert (row["n"], row["val_loss_n"], row["val_loss"]) == (2, 2, "3.000 ± 0")
    assert "switch-s0-22222222: the same configuration and seed as switch-s0-00000000" in capsys.readouterr().err


def test_a_figure_that_is_not_finite_is_empty_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in enumerate((0.1, math.nan, math.inf)):
        write(tmp_path, summary("switch", seed, {"val_loss": 4.0, "load_cv": value}))
        path = tmp_path / "runs" / f"switch-s{seed}-00000000" / "summary.json"
        # The project's own writer refuses such numbers; another program's may not.
        path.write_text(path.read_text().replace('"load_cv": null', f'"load_cv": {json.dumps(value)}'))
    row = _table(tmp_path).loc["Switch"]
    assert (row["n"], row["val_loss_n"], row["load_cv_n"], float(row["load_cv_mean"])) == (3, 3, 1, 0.1)
    said = capsys.readouterr()
    for seed in (1, 2):
        assert f"switch-s{seed}-00000000: not finite, left empty: load_cv" in said.err
        assert f"switch-s{seed}-00000000: not finite" in said.out


def test_runs_that_may_not_be_compared_are_never_averaged(outputs: Path) -> None:
    write(
        outputs,
        summary("switch", 5, {"val_loss": 99.0}, fingerprints={"data": "other"}),
        summary("switch", 6, {"val_loss": 88.0}, fingerprints={"evaluation": "other"}),
        summary("switch", 7, {"val_loss": 77.0}, max_steps=600),
    )
    switch = _table(outputs).loc["Switch"]
    assert [section.split(":")[0] for section in switch["section"]] == ["Group 1", "Group 2", "Group 3", "Group 4"]
    assert sorted(switch["val_loss_mean"].astype(float).round(6)) == [4.2, 77.0, 88.0, 99.0]
    assert switch.iloc[0]["n"] == 3


def test_planted_fault_averaging_over_cell_ids_alone_mixes_them(outputs: Path) -> None:
    write(outputs, summary("switch", 5, {"val_loss": 99.0}, fingerprints={"data": "other"}))
    collected = collect(outputs / "runs")
    mixed = collected.values.merge(collected.runs[["run_id", "cell_id"]], on="run_id")
    careless = mixed[mixed["metric"] == "val_loss"].groupby("cell_id")["value"].mean()
    careful = _table(outputs)["val_loss_mean"].astype(float).tolist()
    assert careless["switch-11111111"] not in careful and sorted(careful)[1] < 5 < sorted(careful)[2] == 99.0


def test_other_batches_and_other_code_are_said(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        outputs,
        summary("hash", 0, {"val_loss": 5.0}, fingerprints={"batches": "shuffled"}),
        summary("dense", 1, {"val_loss": 5.0}, fingerprints={"code": "0123"}),
    )
    table = _table(outputs)
    assert table["pairing"].to_dict() == {
        "Spectra": "ok",
        "Switch": "ok",
        "Dense": "ok",
        "Hash": "other batches at seed 0",
    }
    assert table["stale"].to_dict() == {"Spectra": False, "Switch": False, "Dense": True, "Hash": False}
    for text in (capsys.readouterr().out, (outputs / "tables" / "routing_metrics.md").read_text()):
        assert "Not paired: Hash: other batches at seed 0." in text and "again): Dense." in text
    monkeypatch.setattr(provenance, "code_version", lambda: "tomorrow")
    assert _table(outputs)["stale"].all()


def test_bad_folders_are_named_with_the_reason_and_skipped(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = outputs / "runs"
    good = _table(outputs)
    capsys.readouterr()
    (runs / "empty").mkdir()
    (runs / "notes.txt").write_text("mine")
    (runs / "corrupt").mkdir()
    (runs / "corrupt" / "summary.json").write_text('{"schema": 1, "run')
    shutil.copytree(runs / "switch-s0-00000000", runs / "backup")
    no_metrics = summary("no_metrics", 0, {})
    del no_metrics["metrics"]
    write(
        outputs,
        no_metrics,
        summary("old", 0, {}, schema=0),
        summary("text", 0, {"val_loss": "4.1"}),  # type: ignore[dict-item]
        summary("broken", 0, {}, status="failed"),
    )
    again = _table(outputs)
    pd.testing.assert_frame_equal(again, good)
    lines = capsys.readouterr().err.splitlines()
    reasons = {Path(line.split(":")[0].removeprefix("left out ")).name: line for line in lines}
    expected = {
        "empty": "no summary",
        "notes.txt": "not a run's folder",
        "corrupt": "JSON",
        "backup": "a copy?",
        "no_metrics-s0-00000000": "'metrics' is missing",
        "old-s0-00000000": "schema 0",
        "text-s0-00000000": "'metrics.val_loss' is not a number",
        "broken-s0-00000000": "status is failed",
    }
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name]


def test_the_markdown_is_narrow_and_in_plain_text(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _table(outputs)
    text = (outputs / "tables" / "routing_metrics.md").read_text()
    assert max(len(line) for line in text.splitlines()) <= 120
    spectra = next(line for line in text.splitlines() if line.startswith("| Spectra"))
    assert [cell.strip() for cell in spectra.strip("|").split("|")] == [
        "Spectra",
        "3",
        "no",
        "1.2M",
        "2.5M",
        "1.5M",
        "4.100 ± 0.25",
        "0.1410 ± 0.0025",
        "",
    ]
    assert "\x1b" not in text
    out = capsys.readouterr().out
    assert "Spectra" in out and "4.100 ± 0.25" in out and str(outputs / "tables") in out


def test_a_study_filters_and_an_unknown_one_lists_the_known(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(_table(outputs, "study=b").index) == ["Switch"]
    capsys.readouterr()
    assert main([f"outputs={outputs}", "study=c"]) == 1
    error = capsys.readouterr().err
    assert error == "error: study: no completed run of study 'c'; studies with one: b, demo\n"


@pytest.mark.parametrize("make", [False, True])
def test_no_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], make: bool) -> None:
    if make:
        (tmp_path / "runs").mkdir()
    assert main([f"outputs={tmp_path}"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "tables").exists()


def test_a_metric_named_as_a_column_does_not_overwrite_it(tmp_path: Path) -> None:
    write(tmp_path, summary("switch", 0, {"load_cv": 0.2, "causal": 1.0, "load_cv_floor": 0.9}))
    row = _table(tmp_path).loc["Switch"]
    assert row["causal"] and float(row["load_cv_floor"]) == 0.01 and "causal_mean" not in row


def test_as_a_program(outputs: Path) -> None:
    command = [sys.executable, "-m", "spectra_exp", "tables", f"outputs={outputs}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and answer.stderr == ""
    assert "Loss and balance" in answer.stdout and "\x1b" not in answer.stdout
