"""Archives: the same tables, figures and report as from the folders; damage is told; no place and no name."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_studies import make_study
from small_run import MODEL

from spectra_exp.archive.command import main as archive
from spectra_exp.archive.content import MOST_STEPS, history_tree, run_parts
from spectra_exp.archive.file import Archive, read_archive, write_archive
from spectra_exp.archive.places import own_names, without_names, without_places
from spectra_exp.archive.repeat import configuration_line, differences
from spectra_exp.archive.trees import applied, difference, pack, unpack
from spectra_exp.cli import command
from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.config.resolved import resolved_config
from spectra_exp.config.schema import result_values
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import gather
from spectra_exp.runs.history import History, read_history
from spectra_exp.runs.stored import StoredRun
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.run import main as train

PLACES = re.compile(rb"(?<![\w./])/(?:home|root|tmp|work|usr|Users|var|opt|etc|data|mnt)/\w")


def figures(job) -> dict:
    rng = random.Random(job.run_id)
    return {"metrics": {name: 0.2 + 0.05 * rng.random() for name in ("load_cv", "expert_overlap", "routing_entropy")}}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies with curves, one of them with a run that is missing, and the archive of them, runs.parquet."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_study(folder, "baselines", figures, ("seed=0..2", "baseline=switch_top2,hash,dense"), curves=True)
        make_study(folder, "core", figures, ("seed=0..2", "ablation=none,no_gru"), curves=True)
        late = [
            job for job in make_study(folder, "b_sinkhorn", lambda job: None, ("seed=0", "osr.sinkhorn_iterations=2"))
        ]
        assert late
        make_study(folder, "temperature", figures, ("seed=0..2", "temperature=t0_5,cosine"), curves=True)
    documents = pd.DataFrame(
        {
            "id": np.arange(5, dtype=np.int32) + 100,
            "domain": list("ababa"),
            "tokens": np.arange(1, 6, dtype=np.int32),
            "loss": np.array([0.1, 1 / 3, math.pi, 1e-30, 2e5]),
            "correct": np.arange(5, dtype=np.int32),
        }
    )
    first = sorted((folder / "runs").iterdir())[0]
    documents.to_parquet(first / "documents.parquet")
    assert archive([str(folder / "runs.parquet"), f"outputs={folder}"]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def of_archive(outputs: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function from a verb and its options to the outputs that it made of the archive, once."""

    @cache
    def make(*words: str) -> Path:
        folder = tmp_path_factory.mktemp("archive") / "out"
        assert command([*words, f"outputs={folder}", f"runs={outputs / 'runs.parquet'}"]) == 0
        return folder

    return make


@pytest.mark.parametrize("verb", ["tables", "figures", "report"])
def test_an_archive_gives_the_same_bytes_as_the_folders(outputs: Path, of_archive, tmp_path: Path, verb: str) -> None:
    from_folders = tmp_path / "out"
    asked = ["only=figure03_loss_curves,figure04_expert_usage,routing_dynamics"] if verb == "figures" else []
    assert command([verb, f"outputs={from_folders}", f"runs={outputs}", *asked]) == 0
    one, other = contents(from_folders / verb), contents(of_archive(verb, *asked) / verb)
    assert one.keys() == other.keys() and len(one) > 3
    differing = [name for name in one if one[name] != other[name] and not name.startswith("runs/")]
    assert not differing


def test_a_page_of_an_archived_run_has_its_curves_and_configuration(of_archive) -> None:
    pages = sorted((of_archive("report") / "report" / "runs").glob("*.html"))
    assert len(pages) == 21
    text = pages[0].read_text(encoding="utf-8")
    assert "Loss over training" in text and "sequence_length: 128" in text and "keeps no log" in text


def test_archives_beside_folders_and_of_a_study_alone(outputs: Path, tmp_path: Path) -> None:
    file, second = tmp_path / "core.parquet", tmp_path / "rest.parquet"
    assert archive([str(file), "study=core", f"outputs={outputs}"]) == 0
    assert {study for run in read_archive(file).runs().values() for study in run.summary["studies"]} == {"core"}
    assert archive([str(second), "study=baselines,temperature", f"outputs={outputs}"]) == 0
    beside = gather(tmp_path, runs=[str(file), str(second)])
    assert set(beside.collected.by_run) == set(gather(outputs).collected.by_run)
    # Runs are added to an archive that is there.
    assert archive([str(file), "study=baselines", f"outputs={outputs}"]) == 0
    assert {s for run in read_archive(file).runs().values() for s in run.summary["studies"]} == {"core", "baselines"}


def test_merged_archives_are_the_archive_of_all(outputs: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"{study}.parquet" for study in ("core", "baselines", "temperature")]
    for part in parts:
        assert archive([str(part), f"study={part.stem}", f"outputs={outputs}"]) == 0
    merged = tmp_path / "all.parquet"
    assert archive(["merge", str(merged), *map(str, parts)]) == 0
    whole = read_archive(outputs / "runs.parquet")
    kept = {key: value for key, value in whole.parts.items() if "b_sinkhorn" not in key[0]}
    assert read_archive(merged).parts == kept


def test_runs_that_several_archives_have_are_counted(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(outputs / "runs.parquet")
    runs = len(read_archive(outputs / "runs.parquet").run_ids)
    assert archive(["merge", str(tmp_path / "all.parquet"), file, file]) == 0
    assert f"{runs} runs ({runs} of them a second time)" in capsys.readouterr().out


def test_a_mistyped_command_is_told_from_an_archive_of_a_like_name(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert archive(["lst", str(outputs / "runs.parquet")]) == 2
    assert "did you mean 'list'?" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for word in ("merged.parquet", "list.parquet", "file=verify.parquet"):
        assert archive([word, f"outputs={outputs}", "study=core"]) == 0
        assert Path(word.removeprefix("file=")).is_file()


def test_of_a_run_with_other_figures_the_first_stays_and_it_is_said(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = read_archive(outputs / "runs.parquet")
    run_id = other.run_ids[0]
    tree = unpack(other.parts[run_id, "summary"])
    tree["metrics"]["val_loss"] += 1
    other.parts[run_id, "summary"] = pack(tree)
    write_archive(other, tmp_path / "other.parquet")
    words = [str(tmp_path / "all.parquet"), str(outputs / "runs.parquet"), str(tmp_path / "other.parquet")]
    assert archive(["merge", *words]) == 1
    assert f"{run_id}: in several archives" in capsys.readouterr().err
    assert read_archive(tmp_path / "all.parquet").parts == read_archive(outputs / "runs.parquet").parts


def test_the_same_runs_give_the_same_bytes(outputs: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.parquet"
    assert archive([str(again), f"outputs={outputs}"]) == 0
    assert again.read_bytes() == (outputs / "runs.parquet").read_bytes()
    assert archive([str(again), f"runs={outputs / 'runs.parquet'}", f"outputs={tmp_path}"]) == 0
    assert again.read_bytes() == (outputs / "runs.parquet").read_bytes()


def test_figures_documents_and_counts_come_back_to_the_last_bit(outputs: Path) -> None:
    found = read_archive(outputs / "runs.parquet")
    with_documents = 0
    for path in sorted((outputs / "runs").iterdir()):
        stored, kept = StoredRun(path), found.run(path.name)
        assert kept.summary == {**stored.summary, "command": kept.summary["command"]} and kept.refusal is None
        rows = read_history(path / "history.parquet")
        rows = rows[(rows["layer"] == "all") | (rows["metric"] == "load_cv")].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept.history, rows, check_exact=True)
        for step, snapshot in stored.snapshots.items():
            assert (kept.snapshots[step].counts_LE == snapshot.counts_LE).all()
            assert (kept.snapshots[step].domain_counts_LME == snapshot.domain_counts_LME).all()
        if (documents := stored.scores("documents")) is not None:
            with_documents += 1
            pd.testing.assert_frame_equal(kept.scores("documents"), documents, check_exact=True)
    assert with_documents == 1


def test_archived_runs_carry_their_code_and_are_never_stale(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs / "runs", tmp_path / "runs")
    for path in (tmp_path / "runs").iterdir():
        summary = json.loads((path / "summary.json").read_text())
        summary["fingerprints"]["code"] = "0" * 16
        (path / "summary.json").write_text(json.dumps(summary))
    assert archive([str(tmp_path / "old.parquet"), f"outputs={tmp_path}"]) == 0
    assert gather(tmp_path).collected.runs["stale"].all()
    collected = gather(tmp_path, runs=[str(tmp_path / "old.parquet")]).collected
    assert len(collected.runs) == 21 and not collected.runs["stale"].any()
    code = {run.summary["fingerprints"]["code"] for run in read_archive(tmp_path / "old.parquet").runs().values()}
    assert code == {"0" * 16}


def test_defaults_are_stored_once_and_configurations_come_back_in_their_order(outputs: Path) -> None:
    found = read_archive(outputs / "runs.parquet")
    assert len(list(found.shared("defaults"))) == 1
    for run_id, run in found.runs().items():
        config = StoredRun(outputs / "runs" / run_id).config
        kept = {key: value for key, value in config.items() if key not in ("outputs", "logger", "launch")}
        assert repr({key: value for key, value in run.config.items() if key != "outputs"}) == repr(kept)


# Damage


def rows_of(file: Path) -> tuple[list[dict], pa.Table]:
    table = pq.read_table(file)
    return table.to_pylist(), table


def write_rows(rows: list[dict], table: pa.Table, file: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def test_an_edited_figure_is_told_and_no_verb_takes_the_archive(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, table = rows_of(outputs / "runs.parquet")
    row = next(row for row in rows if row["part"] == "summary")
    row["floats"][0] += 1e-12
    write_rows(rows, table, tmp_path / "edited.parquet")
    assert archive(["verify", str(tmp_path / "edited.parquet")]) == 1
    assert f"{row['owner']} summary was edited" in capsys.readouterr().err
    assert command(["tables", f"outputs={tmp_path}", f"runs={tmp_path / 'edited.parquet'}"]) == 1
    assert archive(["verify", str(outputs / "runs.parquet")]) == 0


def test_of_many_edited_parts_the_first_are_named(outputs: Path, tmp_path: Path) -> None:
    rows, table = rows_of(outputs / "runs.parquet")
    for row in rows:
        row["part"] += "x"
    write_rows(rows, table, tmp_path / "edited.parquet")
    with pytest.raises(SpectraError, match=f"; and {len(rows) - 3} parts more;") as told:
        read_archive(tmp_path / "edited.parquet")
    assert str(told.value).count("was edited") == 3


@pytest.mark.parametrize("change", ["removed", "added", "moved"])
def test_runs_that_were_taken_away_added_or_renamed_are_told(outputs: Path, tmp_path: Path, change: str) -> None:
    rows, table = rows_of(outputs / "runs.parquet")
    place = next(i for i, row in enumerate(rows) if row["part"] == "summary")
    if change == "removed":
        del rows[place]
    elif change == "added":
        rows.append(rows[place])
    else:
        rows[place]["owner"] += "x"
    write_rows(rows, table, tmp_path / "edited.parquet")
    with pytest.raises(SpectraError, match="taken away or added|edited"):
        read_archive(tmp_path / "edited.parquet")


@pytest.mark.parametrize("seed", range(12))
def test_damaged_bytes_are_told(outputs: Path, tmp_path: Path, seed: int) -> None:
    content = bytearray((outputs / "runs.parquet").read_bytes())
    dice = random.Random(seed)
    if seed % 2:
        del content[dice.randrange(len(content)) :]
    else:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file = tmp_path / "damaged.parquet"
    file.write_bytes(content)
    try:
        found = read_archive(file)
    except SpectraError:
        return
    # A bit that no reader looks at.
    assert found.parts == read_archive(outputs / "runs.parquet").parts


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.parquet"
    if content is None:
        pd.DataFrame({"a": [1]}).to_parquet(file)
    else:
        file.write_bytes(content)
    assert archive(["list", str(file)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_summary_of_another_schema_is_told(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, file = read_archive(outputs / "runs.parquet"), tmp_path / "other.parquet"
    run_id = other.run_ids[0]
    other.parts[run_id, "summary"] = pack(other.run(run_id).parts["summary"] | {"schema": 0})
    write_archive(other, file)
    for words in (["list", str(file)], ["list", str(file), "runs=true"], ["verify", str(file), f"only={run_id}"]):
        assert archive(words) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and f"{run_id}: schema 0" in told


@pytest.mark.parametrize(
    "words",
    [
        ["runs.csv"],
        ["merge", "a.parquet"],
        ["list"],
        ["verify", "gone.parquet"],
        ["a.parquet", "study=gone"],
        ["lst", "a.parquet"],
    ],
)
def test_wrong_words_are_one_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert archive([*words, f"outputs={tmp_path}"]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


def test_edited_and_unfinished_runs_are_named_and_not_packed(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(outputs / "runs", tmp_path / "runs")
    damaged, unfinished = sorted((tmp_path / "runs").iterdir())[:2]
    (damaged / "history.parquet").write_bytes(b"x")
    (unfinished / "summary.json").unlink()
    assert archive([str(tmp_path / "a.parquet"), f"outputs={tmp_path}"]) == 0
    told = capsys.readouterr().err
    assert f"left out {unfinished.name}: no summary yet" in told and f"left out {damaged.name}: " in told
    assert not {damaged.name, unfinished.name} & set(read_archive(tmp_path / "a.parquet").run_ids)


# Places and names


def all_text(file: Path) -> bytes:
    rows, _ = rows_of(file)
    return json.dumps([[row["owner"], row["shape"], row["texts"]] for row in rows]).encode()


def test_no_place_and_no_name_is_in_an_archive(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs, tmp_path / "o")
    host = own_names()[0]
    for path in sorted((tmp_path / "o" / "runs").iterdir()):
        summary = json.loads((path / "summary.json").read_text())
        summary["command"] += f" data.train=/home/somebody/texts/train.jsonl outputs={tmp_path} logger.entity=somebody"
        (path / "summary.json").write_text(json.dumps(summary))
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(text.replace("tokenizer: null", "tokenizer: /home/somebody/t/tokenizer.json"))
    failed = sorted((tmp_path / "o" / "runs").iterdir())[0]
    summary = json.loads((failed / "summary.json").read_text())
    summary |= {"status": "failed", "error": f"OSError: {host}: no space left in /var/somebody/x/y"}
    (failed / "summary.json").write_text(json.dumps(summary))
    for file in (tmp_path / "o" / "studies").glob("*.json"):
        file.write_text(
            file.read_text().replace("python train.py", "python train.py data.train=/mnt/disk/real/train.jsonl")
        )
    assert archive([str(tmp_path / "a.parquet"), f"outputs={tmp_path / 'o'}"]) == 0
    text = all_text(tmp_path / "a.parquet")
    assert b"texts/train.jsonl" in text and b"real/train.jsonl" in text
    assert not PLACES.search(text) and b"somebody" not in text.replace(b"somebody/x", b"")
    assert not re.search(rf"\b{re.escape(host)}\b".encode(), text)
    assert str(tmp_path).encode() not in text and b"pickle" not in text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("data.train=/home/me/real_mix/train.jsonl seed=0", "data.train=real_mix/train.jsonl seed=0"),
        ("/home/bob/train.jsonl", "train.jsonl"),
        ("~/x/y/z.txt", "y/z.txt"),
        ("see file:///etc/a/b", "see a/b"),
        ("https://a.org/b/c stays", "https://a.org/b/c stays"),
        ("tokens/s, 1/2 and a/b/c stay", "tokens/s, 1/2 and a/b/c stay"),
        ("['/a/b/c', \"/d/e/f\"]", "['b/c', \"e/f\"]"),
    ],
)
def test_paths_are_cut(text: str, kept: str) -> None:
    assert without_places(text) == kept and without_names(kept) == kept


# Trees

LEAVES = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats() | st.text(max_size=5)
TREES = st.recursive(LEAVES, lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(max_size=3), t, max_size=4))
GROUPS = st.dictionaries(st.text("abc", max_size=2), TREES, max_size=4)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_a_tree_is_taken_apart_and_put_together(tree: object) -> None:
    assert repr(unpack(pack(tree))) == repr(tree)


@settings(max_examples=200, deadline=None)
@given(GROUPS, GROUPS)
def test_a_difference_gives_the_tree_back_in_its_order(tree: dict, base: dict) -> None:
    assert repr(applied(base, unpack(pack(difference(tree, base))))) == repr(tree)


def test_of_many_logged_steps_sixty_are_kept_the_last_among_them_and_every_evaluation() -> None:
    history = History()
    for step in range(1, 201):
        history.add(step, step / 200, "train", {"train_loss": 1 / step})
    for step in (0, 20, 50, 100, 150, 200):
        history.add(step, step / 200, "validation", {"val_loss": 5.0})
    tree = history_tree(history.frame())
    place, values = tree["curves"]["train"]["all"]["train_loss"]
    assert len(values) == MOST_STEPS and tree["times"][place][0][-1] == 200
    place, _ = tree["curves"]["validation"]["all"]["val_loss"]
    assert tree["times"][place][0] == [0, 20, 50, 100, 150, 200]


# Files of data


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/a/b/real/train.jsonl", "real/train.jsonl"),
        ("real/train.jsonl", "real/train.jsonl"),
        ("/home/me/t.csv", "t.csv"),
    ],
)
def test_a_section_names_files_of_data_by_their_ends_and_its_commands_by_their_places(path: str, told: str) -> None:
    config = {"data": {"train": path}, "choices": {"data": "files"}}
    assert resolved_config(config).values["data.train"] == told
    runs = SimpleNamespace(run=lambda run_id: SimpleNamespace(config=config))
    row = Row({}, "a method", runs={0: "a run"})
    section = Section("core", ("data=files", f"data.train={told}"), (), [row], runs)
    assert section.typed == ["data=files", f"data.train={path}"]


# A run made again


@pytest.mark.parametrize("study", ["core", "baselines", "temperature", "e_context"])
def test_the_line_of_an_archived_configuration_is_that_configuration(study: str) -> None:
    prepare_environment()
    for line in study_jobs(load_study(study), ["seed=1"])[::3]:
        made = load_experiment(line)
        config = {key: value for key, value in asdict(made).items() if key != "overrides"}
        if "temperature=best_long" not in line:
            again = load_experiment(configuration_line(SimpleNamespace(config=config)))
            assert result_values(again) == result_values(made)


SMALL = [
    "debug=smoke",
    *MODEL,
    "data.sequence_length=32",
    "data.vocabulary_size=300",
    "data.train_words=4000",
    "data.validation_words=2000",
    "data.evaluation_tokens=1024",
    "data.probe_tokens=256",
    "trainer.batch_size=4",
    "trainer.max_steps=3",
    "logger.progress=false",
]


def test_a_run_of_an_archive_is_made_again_digit_for_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    file = tmp_path / "small.parquet"
    assert train([*SMALL, "router=spectra", "osr.sinkhorn_epsilon=0.1"]) == 0
    assert archive([str(file)]) == 0
    assert archive(["verify", str(file), "cells=1"]) == 0
    assert "every digit as archived" in capsys.readouterr().out
    found = read_archive(file)
    (run_id,) = found.run_ids
    tree = unpack(found.parts[run_id, "history"])
    tree["curves"]["train"]["all"]["train_loss"][1][0] += 1e-9
    found.parts[run_id, "history"] = pack(tree)
    changed = differences(found.run(run_id), StoredRun(tmp_path / "runs" / run_id))
    assert len(changed) == 1 and changed[0].startswith("history.train.all.train_loss[1][0]")
    assert archive(["verify", str(file), "cells=2"]) == 2
    capsys.readouterr()
    assert archive(["verify", str(file), f"only={run_id},gone"]) == 2
    said = capsys.readouterr()
    assert "only: unknown name 'gone'" in said.err and "train.py" not in said.out
    assert len(run_parts(found.run(run_id))) >= 5 and isinstance(found, Archive)
