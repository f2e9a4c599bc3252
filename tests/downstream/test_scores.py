"""Finding runs, naming tasks, keeping scores, and what tables make of them; none of it needs the harness."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from spectra_exp.config.verb import read_options
from spectra_exp.downstream.command import main
from spectra_exp.downstream.options import EvaluateOptions
from spectra_exp.downstream.scores import (
    find_runs,
    item_scores,
    keep_scores,
    left_to_score,
    tasks_fingerprint,
    wanted_tasks,
)
from spectra_exp.downstream.tasks import chance_of, local_task, task_digest, task_files, task_names
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import write_json
from spectra_exp.reporting.collect import collect
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import sealed

ITEMS = [
    {"question": "Up or down?", "context": "A hill.", "choices": ["up", "down"], "answer": 0},
    {"question": "One of four?", "context": "Letters.", "choices": ["a", "b", "c", "d"], "answer": 3},
]


def write_items(folder: Path, items: list[dict], tasks=None) -> str:
    """A folder with these items as every local task's file."""
    folder.mkdir(exist_ok=True)
    for name in tasks or task_files():
        file = folder / f"{name.removeprefix('local_')}.jsonl"
        file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(folder)


def options(*words: str):
    return read_options(EvaluateOptions, ["run=x", *words])


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three completed runs and one that failed."""
    folder = tmp_path / "runs"
    text = ("name", "label", "router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")
    for seed, (run_id, status) in enumerate(
        [("one-s0", "completed"), ("two-s0", "completed"), ("three-s0", "completed"), ("bad-s0", "failed")]
    ):
        path = folder / run_id
        path.mkdir(parents=True)
        summary = {"schema": 1, "run_id": run_id, "cell_id": run_id, "seed": seed, "status": status, "error": None}
        summary["steps"] = 1
        summary |= dict.fromkeys(text, "x") | {"metrics": {"val_loss": 1.0}, "fingerprints": {}, "floors": {}}
        (path / "summary.json").write_text(json.dumps(summary | {"metrics_training_rule": {}, "parameters": {}}))
    return folder


def entry(score: float, **settings) -> dict:
    return {"score": score, "error": None, "figure": "acc", "items": 2, "chance": 0.5, "settings": settings}


@pytest.mark.parametrize("name", task_files())
def test_every_task_file_is_one_of_the_harness_and_reads_the_folder_given(name, tmp_path):
    declared = yaml.safe_load(task_files()[name].read_text())
    assert declared["task"] == name and declared["output_type"] == "multiple_choice"
    task = local_task(name, write_items(tmp_path / "data", ITEMS))
    (path,) = task["dataset_kwargs"]["data_files"].values()
    assert Path(path).is_file() and Path(path).is_absolute()
    assert chance_of(task) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert chance_of(task, limit=1) == 1 / 2


def test_a_task_is_its_declaration_and_its_items_wherever_they_lie(tmp_path):
    folders = [write_items(tmp_path / name, items) for name, items in (("a", ITEMS), ("b", ITEMS), ("c", ITEMS[:1]))]
    digests = [task_digest(local_task("local_qasc", folder)) for folder in folders]
    assert digests[0] == digests[1] != digests[2]
    assert task_digest(local_task("local_openbookqa", folders[0])) != digests[0]


@pytest.mark.parametrize(
    "line, told",
    [
        ("{}", r"line 3 of .*qasc.jsonl is no item"),
        ('{"question": "?", "choices": ["a"], "answer": 1}', "line 3 of"),
        ("nonsense", "line 3 of"),
    ],
)
def test_a_bad_item_is_told_with_its_line(line, told, tmp_path):
    folder = write_items(tmp_path / "data", ITEMS)
    for name in task_files():
        with (Path(folder) / f"{name.removeprefix('local_')}.jsonl").open("a") as file:
            file.write(line + "\n")
    with pytest.raises(ConfigError, match=told):
        local_task("local_qasc", folder)


@pytest.mark.parametrize(
    "words, told",
    [
        (["runs=x"], "runs: unknown name 'runs'; did you mean 'run'?"),
        (["limit=few"], "limit: 'few' is not a whole number"),
        (["limit=0"], "limit: 0 was given; must be at least 1"),
        (["here"], "'here' is not key=value"),
        ([], "run: no run was given"),
    ],
)
def test_bad_options_are_told_in_one_line(words, told, capsys):
    assert main(words or ["limit=3"]) == 2
    assert told in capsys.readouterr().err


def test_an_item_needs_what_its_task_reads(tmp_path):
    folder = write_items(tmp_path / "data", [{k: v for k, v in item.items() if k != "context"} for item in ITEMS])
    local_task("local_qasc", folder)
    with pytest.raises(ConfigError, match='line 1 of .*pubmedqa.jsonl is no item; write {"context": ...'):
        local_task("local_pubmedqa", folder)


def test_options_keep_texts_as_they_are():
    assert read_options(EvaluateOptions, ["run=12", "tasks=arc_easy,qasc", "limit=5"]).run == "12"
    assert read_options(EvaluateOptions, ["run=1", "limit=null"]).limit is None


def test_tasks_are_named_before_anything_runs(tmp_path):
    def harness():
        return ["hellaswag", "piqa"]

    with pytest.raises(ConfigError, match="unknown name 'hellasweg'; did you mean 'hellaswag'"):
        wanted_tasks(options("tasks=hellasweg"), harness)
    with pytest.raises(ConfigError, match=r"data: local_\w+ reads \w+.jsonl and no folder is named"):
        wanted_tasks(options(), harness)
    folder = write_items(tmp_path / "data", ITEMS)
    assert [task.name for task in wanted_tasks(options(f"data={folder}"), harness)] == list(task_files())
    (tmp_path / "data" / "qasc.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"data: there is no .*qasc.jsonl"):
        wanted_tasks(options(f"data={folder}"), harness)


def test_without_the_task_files_it_says_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRA_ROOT", str(tmp_path))
    for given in ("local", "local_qasc"):
        with pytest.raises(ConfigError, match=f"^tasks: there are no local tasks: {tmp_path}/downstream has no .yaml"):
            wanted_tasks(options(f"tasks={given}"), lambda: ["piqa"])
    assert task_names("piqa") == ["piqa"]


def test_runs_are_found_by_id_folder_and_pattern(runs):
    assert [f.run_id for f in find_runs("two-s0,one-s0", runs)] == ["two-s0", "one-s0"]
    assert [f.run_id for f in find_runs(f"{runs}/one-s0, one-s0", runs)] == ["one-s0"]
    # A pattern passes over what did not finish.
    assert [f.run_id for f in find_runs("*", runs)] == ["one-s0", "three-s0", "two-s0"]
    for given, told in (("ones-0", "did you mean 'one-s0'"), ("bad-s0", "bad-s0 is failed"), ("z*", "matches 'z")):
        with pytest.raises(ConfigError, match=told):
            find_runs(given, runs)


def test_scores_are_kept_beside_earlier_ones_and_their_mean_counts(runs, tmp_path):
    folder = RunFolder(runs, "one-s0")
    keep_scores(folder, {"a": entry(0.2, limit=None)})
    summary = keep_scores(folder, {"b": entry(0.6, limit=None)})
    assert summary["metrics"]["downstream_score"] == pytest.approx(0.4)
    assert summary["metrics"]["downstream_a"] == 0.2 and summary["metrics"]["val_loss"] == 1.0
    assert summary["floors"]["downstream_score"] == summary["floors"]["downstream_b"] == 0.5
    # A task of the harness that does not say what chance gives: the mean's is not known either.
    other = keep_scores(RunFolder(runs, "two-s0"), {"a": entry(0.2), "c": entry(0.6) | {"chance": None}})
    assert other["floors"]["downstream_score"] is None and other["floors"]["downstream_a"] == 0.5
    assert folder.read_summary() == summary
    wanted = wanted_tasks(options(f"data={write_items(tmp_path / 'data', ITEMS)}", "tasks=local_qasc"), list)
    assert left_to_score(folder, wanted, force=False) == wanted
    keep_scores(folder, {"local_qasc": entry(0.5) | {"settings": wanted[0].settings}})
    assert left_to_score(folder, wanted, force=False) == [] and left_to_score(folder, wanted, force=True) == wanted
    shorter = wanted_tasks(options(f"data={tmp_path / 'data'}", "tasks=local_qasc", "limit=1"), list)
    assert left_to_score(folder, shorter, force=False) == shorter


def samples(*scores: float, filter: str = "none", passages: str = "") -> list[dict]:
    docs = [{"question": str(i)} | ({"passage": passages[i]} if passages else {}) for i in range(len(scores))]
    return [
        {"doc_id": i, "doc": doc, "filter": filter, "acc": score}
        for i, (doc, score) in enumerate(zip(docs, scores, strict=True))
    ]


def test_items_of_one_passage_are_one_group_and_other_filters_are_left_out():
    results = {"samples": {"t": samples(1.0, 0.0, 1.0, passages="aab")[::-1]}}
    found = item_scores("t", "acc", results)
    assert found["score"].tolist() == [1.0, 0.0, 1.0] and found["item"].tolist() == [0, 1, 2]
    assert found["group"].nunique() == 2 and found["group"][0] == found["group"][1]
    two = {"samples": {"t": samples(1.0, 0.0) + samples(0.0, 0.0, filter="strict")}}
    assert item_scores("t", "acc_strict", two)["score"].tolist() == [0.0, 0.0]
    assert item_scores("t", "acc", two)["group"].is_unique
    # F1 is no mean over items.
    assert item_scores("t", "acc", {"samples": {"t": samples((1, 0), (0, 1))}}) is None
    assert item_scores("t", "acc", {"samples": {"t": samples(1.0, float("nan"))}}) is None


def test_items_of_a_task_take_the_place_of_earlier_ones_and_no_edit_is_hidden(runs):
    folder = RunFolder(runs, "one-s0")
    content = json.loads(folder.summary.read_text())
    write_json(folder.summary, sealed(folder.path, content))
    first, second = ({"samples": {"t": samples(*scores)}} for scores in ((1.0, 0.0), (0.0,)))
    keep_scores(folder, {"a": entry(0.5)}, {"a": item_scores("a", "acc", first)})
    keep_scores(folder, {"b": entry(0.5)}, {"b": item_scores("b", "acc", first)})
    keep_scores(folder, {"a": entry(0.0)}, {"a": item_scores("a", "acc", second)})
    run = StoredRun(folder.path)
    assert run.changed_files is None and run.scores("items")["task"].tolist() == ["a", "b", "b"]
    run.scores("items").assign(score=1.0).to_parquet(folder.items)
    keep_scores(folder, {"c": entry(0.5)}, {"c": item_scores("c", "acc", first)})
    assert "items.parquet" in StoredRun(folder.path).changed_files


def test_scores_over_other_tasks_are_left_out_of_the_tables(runs):
    for name, settings in (("one-s0", {"limit": None}), ("two-s0", {"limit": None}), ("three-s0", {"limit": 5})):
        keep_scores(RunFolder(runs, name), {"a": entry(0.25, **settings)})
    collected = collect(runs)
    assert collected.figures["one-s0", "downstream_score"][0] == 0.25
    assert ("three-s0", "downstream_score") not in collected.figures
    assert "downstream scores" in collected.odd["three-s0"]
    assert ("three-s0", "val_loss") in collected.figures
    # The planted other way round: equal settings, and nothing is left out.
    shutil.rmtree(runs / "three-s0")
    assert collect(runs).odd == {}
    assert tasks_fingerprint({"a": entry(0.1, limit=1)}) == tasks_fingerprint({"a": entry(0.9, limit=1)})
    assert direction("downstream_score") == direction("downstream_local_qasc") == "higher"
