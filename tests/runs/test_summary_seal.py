"""A summary tells whether the run's files and its own figures are still what the run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.runs.summary import change_summary, check_files, read_summary, sealed, summary_edited

CONTENT: dict[str, Any] = {
    "schema": 1,
    "run_id": "r-00000000",
    "status": "stopped",
    "seed": 0,
    "studies": [],
    "metrics": {"val_loss": 4.1, "load_cv": float("nan")},
    "timings": {"wall_s": 3.0},
}
SNAPSHOTS = ("routing/step-00000000.npz", "routing/step-00000010.npz")
FILES = ("config.yaml", ".hydra/config.yaml", "history.parquet", *SNAPSHOTS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for number, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes([number]) * 50)
    write_json(tmp_path / "summary.json", sealed(tmp_path, CONTENT))
    return tmp_path


def edit(run: Path, **changes: Any) -> None:
    """As somebody does with an editor."""
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_told_unchanged(run: Path) -> None:
    summary = read_summary(run / "summary.json")
    assert check_files(run, summary) == [] and not summary_edited(summary)
    assert summary == CONTENT | {"metrics": {"val_loss": 4.1, "load_cv": None}}
    assert set(summary.seal["files"]) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_edited_missing_or_no_file_is_named(run: Path, name: str) -> None:
    path, summary = run / name, read_summary(run / "summary.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert check_files(run, summary) == [name]
    path.unlink()
    assert check_files(run, summary) == [name]
    path.mkdir()
    assert check_files(run, summary) == [name]


def test_swapped_and_added_snapshots_are_named(run: Path) -> None:
    summary = read_summary(run / "summary.json")
    first, second = (run / name for name in SNAPSHOTS)
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert check_files(run, summary) == list(SNAPSHOTS)
    first.write_bytes(a)
    second.write_bytes(b)
    (run / "routing" / "step-00000020.npz").write_bytes(a)
    assert check_files(run, summary) == ["routing/step-00000020.npz"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(CONTENT)), value=st.integers() | st.floats() | st.booleans())
def test_any_edited_key_is_told(run: Path, key: str, value: Any) -> None:
    write_json(run / "summary.json", sealed(run, CONTENT))
    kept = {"schema", "status"}  # what else these say is no summary at all
    if key not in kept and json.dumps(value) != json.dumps(CONTENT[key]):
        edit(run, **{key: value})
        try:
            assert summary_edited(read_summary(run / "summary.json"))
        except SpectraError as error:
            # Of another type than the key's values: no summary at all.
            assert f"'{key}'" in str(error)


def test_a_study_that_joins_seals_anew_and_hides_no_edit(run: Path) -> None:
    path = run / "summary.json"
    change_summary(path, {"studies": ["a"]})
    assert read_summary(path)["studies"] == ["a"] and not summary_edited(read_summary(path))
    (run / "history.parquet").write_bytes(b"other")
    change_summary(path, {"studies": ["a", "b"]})
    assert check_files(run, read_summary(path)) == ["history.parquet"]
    edit(run, metrics={"val_loss": -5.0})
    change_summary(path, {"studies": ["a", "b", "c"]})
    assert summary_edited(read_summary(path))


@pytest.mark.parametrize("key", ["cell_id", "command", "new"])
def test_a_text_that_could_not_be_written_anywhere_is_refused(run: Path, key: str) -> None:
    content = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(content | {key: ["\ud800"]}))
    with pytest.raises(SpectraError, match="surrogates not allowed"):
        read_summary(run / "summary.json")


def test_a_summary_without_a_seal_is_taken_and_stays_without(run: Path) -> None:
    path = run / "summary.json"
    path.write_text(json.dumps(CONTENT))
    change_summary(path, {"studies": ["a"]})
    summary = read_summary(path)
    assert summary.seal is None and check_files(run, summary) == [] and not summary_edited(summary)


def test_a_damaged_seal_is_one_line(run: Path) -> None:
    for seal in (3, {"files": []}, {"files": {"a": 1}, "content": ""}):
        edit(run, seal=seal)
        with pytest.raises(Exception, match="'seal' is not what a summary holds"):
            read_summary(run / "summary.json")
