"""Comparisons that cannot be made, typed as commands: each is one line that names the run and what to do."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_studies import make_study
from test_by_document import leave_documents

from spectra_exp.cli import command
from spectra_exp.foundations.files import write_json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        make_study(outputs, "baselines", lambda job: {}, ("seed=0..2", "baseline=switch_top2,hash"))
    for number, path in enumerate(sorted((outputs / "runs").iterdir())):
        leave_documents(path, 0.0, number)
    return outputs


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def runs(world: Path, baseline: str) -> list[Path]:
    kept = []
    for path in sorted((world / "runs").iterdir()):
        summary = json.loads((path / "summary.json").read_text())
        if summary["baseline"] == baseline:
            kept.append((summary["seed"], path))
    return [path for _, path in sorted(kept)]


def prints(key: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        summary = json.loads((run / "summary.json").read_text())
        summary["fingerprints"][key] = "other"
        write_json(run / "summary.json", summary)

    return change


def gone(run: Path) -> None:
    (run / "documents.parquet").unlink()


def shorter(run: Path) -> None:
    leave_documents(run, 0.0, 1, 119)


def other_tokens(run: Path) -> None:
    frame = pd.read_parquet(run / "documents.parquet")
    frame.assign(tokens=frame["tokens"] + 1).to_parquet(run / "documents.parquet")


def garbage(run: Path) -> None:
    (run / "documents.parquet").write_bytes(b"PAR1 and no more")


def other_columns(run: Path) -> None:
    pd.DataFrame({"id": [1], "loss": [2.0]}).to_parquet(run / "documents.parquet")


def no_number(column: str, value: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        frame = pd.read_parquet(run / "documents.parquet")
        own = frame[column].astype(object if isinstance(value, str) else float)
        frame.assign(**{column: own.where(frame["id"] != 3, value)}).astype({column: type(value)}).to_parquet(
            run / "documents.parquet"
        )

    return change


def empty(run: Path) -> None:
    for path in run.parent.iterdir():
        pd.read_parquet(path / "documents.parquet").iloc[:0].to_parquet(path / "documents.parquet")


# What was done to the first of the runs, the status, and what the line says beside the run's name.
BAD = {
    "an old folder": (gone, 1, "it has no documents.parquet; spectra-exp rescore"),
    "a document is missing": (shorter, 2, "was scored on other documents"),
    "another tokenizer": (other_tokens, 2, "was scored on other documents"),
    "another tokenizer, known by the data": (prints("data"), 2, "may not be compared: other data"),
    "another evaluation set": (prints("evaluation"), 2, "may not be compared: other evaluation"),
    "a damaged file": (garbage, 1, "documents.parquet: not readable"),
    "another file": (other_columns, 1, "not the scores of a run"),
    "a loss that is none": (
        no_number("loss", math.nan),
        1,
        "not the scores of a run (loss has what is no finite number)",
    ),
    "an endless loss": (no_number("loss", math.inf), 1, "loss has what is no finite number"),
    "text": (no_number("loss", "much"), 1, "loss has what is no finite number"),
    "a document of nothing": (no_number("tokens", 0.0), 1, "a document without scored tokens"),
    "no document": (empty, 1, "its documents.parquet has no rows"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("seeds", [1, 3])
def test_two_runs_or_two_methods_are_refused_by_name(world: Path, name: str, seeds: int, capsys) -> None:
    change, status, said = BAD[name]
    a, b = runs(world, "hash")[:seeds], runs(world, "switch_top2")[:seeds]
    change(a[0])
    words = [f"a={','.join(run.name for run in a)}", f"b={','.join(run.name for run in b)}", f"outputs={world}"]
    assert command(["compare", *words]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    # Sums that no longer fit are found in whichever run comes second.
    assert said in err and any(run.name in err for run in (a[0], b[0])), err


def compared(world: Path, seeds: int, capsys) -> str:
    sides = ([run.name for run in runs(world, name)[:seeds]] for name in ("hash", "switch_top2"))
    words = [f"{key}={','.join(names)}" for key, names in zip("ab", sides, strict=True)]
    assert command(["compare", *words, f"outputs={world}"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_one_document_or_none_that_differs_is_said_and_has_no_test(world: Path, capsys) -> None:
    for run in (world / "runs").iterdir():
        leave_documents(run, 0.0, int(runs(world, "hash")[0] == run), 1)
    assert "one document only" in compared(world, 1, capsys)
    # Ties throughout: no difference at any document, for one seed and for several.
    for run in (world / "runs").iterdir():
        leave_documents(run, 0.0, 1)
    assert "zero variance" in compared(world, 1, capsys) and "zero variance" in compared(world, 3, capsys)


def test_one_seed_has_an_interval_of_these_runs_alone(world: Path, capsys) -> None:
    assert "about these runs (1 seed)" in compared(world, 1, capsys)
    assert "about these methods (3 seeds)" in compared(world, 3, capsys)


def test_seeds_that_are_no_pairs_are_named(world: Path, capsys) -> None:
    a, b = runs(world, "hash"), runs(world, "switch_top2")
    for words, said in (
        ([f"a={a[0].name},{a[1].name}", f"b={b[0].name}"], "seed 1 is on one side alone"),
        ([f"a={a[0].name},{a[0].name}", f"b={b[0].name},{b[1].name}"], "not one configuration under several seeds"),
        ([f"a={a[0].name}"], "b: is missing"),
        ([f"a={a[0].name}x", f"b={b[0].name}"], f"did you mean '{a[0].name}'"),
        ([f"a={a[0].name}", f"b={b[0].name}", "margin=0"], "must be greater than 0"),
        ([f"a={a[0].name}", f"b={b[0].name}", "metric=val_los"], "did you mean 'val_loss'"),
    ):
        assert command(["compare", *words, f"outputs={world}"]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, err


def test_a_run_without_a_checkpoint_cannot_be_scored_again(world: Path, capsys) -> None:
    run = runs(world, "hash")[0]
    gone(run)
    assert command(["rescore", run.name, f"outputs={world}"]) == 1
    err = capsys.readouterr().err
    assert run.name in err and "error: " in err and "Traceback" not in err
