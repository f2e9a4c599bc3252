"""Runs compared document by document: what is said of two models and of two methods, and what may not be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_studies import make_study

from spectra_exp.api import compare, load_runs
from spectra_exp.cli import command
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.reporting.by_document import compare_by_document
from spectra_exp.runs.stored import StoredRun, stored_runs

DOMAINS = ("code", "math", "prose")


def leave_documents(run: Path, shift: float, seed: int, count: int = 120) -> None:
    """Losses of 3 nats a token with what documents have of their own, `shift` off in code alone."""
    text, own = np.random.default_rng(0), np.random.default_rng(seed)
    tokens = text.integers(20, 200, count)
    domain = np.array(DOMAINS)[np.arange(count) % 3]
    loss = (3 + text.normal(0, 0.5, count) + own.normal(0, 0.02, count) + shift * (domain == "code")) * tokens
    columns = {"id": np.arange(count), "domain": domain, "tokens": tokens, "loss": loss, "correct": tokens // 3}
    pd.DataFrame(columns).to_parquet(run / "documents.parquet")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[StoredRun]]:
    """Switch and hash under five seeds, hash 0.1 nats better in code."""
    outputs = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(outputs))
        make_study(outputs, "baselines", lambda job: {}, ("seed=0..4", "baseline=switch_top2,hash"))
    found: dict[str, list[StoredRun]] = {"switch": [], "hash": []}
    for number, run in enumerate(stored_runs(outputs / "runs")):
        router = run.summary["router"]
        leave_documents(run.path, -0.1 if router == "hash" else 0.0, number + 1)
        found[router].append(run)
    return found


def fresh(runs: list[StoredRun]) -> list[StoredRun]:
    return [StoredRun(run.path) for run in runs]


def test_two_models_differ_where_they_were_made_to(world) -> None:
    found = compare_by_document(world["hash"][:1], world["switch"][:1])
    assert found.claim == "these runs" and found.crossed is None
    by = {outcome.domain: outcome for outcome in found.outcomes}
    assert list(by) == ["all", *DOMAINS] and by["all"].documents == 120 and by["code"].documents == 40
    assert by["code"].verdict == "better" and by["code"].difference == pytest.approx(-0.1, abs=0.02)
    assert by["math"].verdict == by["prose"].verdict == "equivalent"
    # Corrected over the three domains, not over the whole.
    assert by["math"].p_corrected >= by["math"].p and by["all"].p_corrected == by["all"].p
    assert by["code"].region.below > 0.99 and by["math"].region.within > 0.95
    other = compare_by_document(world["switch"][:1], world["hash"][:1])
    assert other.outcomes[0].difference == -found.outcomes[0].difference
    assert [outcome.verdict for outcome in other.outcomes if outcome.domain == "code"] == ["worse"]


def test_several_seeds_speak_of_the_methods(world) -> None:
    found = compare_by_document(world["hash"], world["switch"])
    assert found.claim == "these methods" and found.seeds == 5 and found.crossed.share_text is not None
    whole = found.outcomes[0]
    assert whole.ci_low < found.crossed.seed_low < found.crossed.seed_high < whole.ci_high < 0


def test_python_gives_the_same(world) -> None:
    runs = load_runs(world["hash"][0].path.parent.parent)
    found = compare(runs, {"router": "hash"}, {"router": "switch"}, by="document")
    assert found == compare_by_document(world["hash"], world["switch"])
    one = compare(runs[runs["seed"] == 0], {"router": "hash"}, {"router": "switch"}, by="document")
    assert one.claim == "these runs"
    with pytest.raises(ConfigError, match="val_loss"):
        compare(runs, {"router": "hash"}, {"router": "switch"}, "load_cv", by="document")


def test_the_command_says_it_from_folders_and_archives(world, tmp_path: Path, capsys) -> None:
    outputs = world["hash"][0].path.parent.parent
    a, b = (",".join(run.run_id for run in world[name]) for name in ("hash", "switch"))
    assert command(["compare", f"a={a}", f"b={b}", f"outputs={outputs}"]) == 0
    text = capsys.readouterr().out
    assert "about these methods (5 seeds)" in text and "% is of the text" in text and "Holm" in text
    assert command(["archive", str(tmp_path / "kept.parquet"), f"outputs={outputs}"]) == 0
    capsys.readouterr()
    kept = f"runs={tmp_path / 'kept.parquet'}"
    assert command(["compare", f"a={a}", f"b={b}", kept]) == 0
    assert capsys.readouterr().out == text


def refuse(
    words: str,
    a: list[StoredRun],
    b: list[StoredRun],
    kind: type[Exception] = ConfigError,
    metric: str = "val_loss",
) -> None:
    with pytest.raises(kind, match=words):
        compare_by_document(fresh(a), fresh(b), metric)


@pytest.fixture
def changed(world) -> Callable[[str, object], None]:
    """A function that changes a key of the fingerprints of the first hash run until the test ends."""
    path = world["hash"][0].path / "summary.json"
    kept = path.read_bytes()

    def change(key: str, value: object) -> None:
        content = json.loads(kept)
        content["fingerprints"][key] = value
        write_json(path, content)

    yield change
    path.write_bytes(kept)


def test_what_may_not_be_compared_is_refused_by_name(world, changed) -> None:
    a, b = world["hash"], world["switch"]
    changed("evaluation", "other")
    refuse(f"{a[0].run_id} and {b[0].run_id} may not be compared: other evaluation", a[:1], b[:1])
    changed("data", "other")
    refuse("other data", a, b)
    changed("batches", "other")
    refuse("other batches", a, b)
    # Of two models nothing is said about how they were trained.
    compare_by_document(fresh(a[:1]), fresh(b[:1]))


def test_seeds_and_documents_that_do_not_fit_are_refused(world, capsys) -> None:
    a, b = world["hash"], world["switch"]
    refuse("seed . is on one side alone", a[:3], b[:2])
    refuse("not one configuration under several seeds", [a[0], b[0]], b[:2])
    file = a[0].path / "documents.parquet"
    kept = file.read_bytes()
    leave_documents(a[0].path, 0, 1, 119)
    refuse("was scored on other documents", a[:1], b[:1])
    file.write_bytes(b"PAR1")
    refuse("documents.parquet: not readable", a[:1], b[:1], SpectraError)
    file.unlink()
    refuse(f"spectra-exp rescore {a[0].run_id} makes it", a[:1], b[:1], SpectraError)
    file.write_bytes(kept)
    outputs = f"outputs={a[0].path.parent.parent}"
    for words, said in (
        (["a=nothing", f"b={b[0].run_id}"], "unknown name 'nothing'"),
        ([f"a={a[0].run_id}"], "b: is missing"),
        ([f"a={a[0].run_id}", f"b={b[0].run_id}", "metric=load_cv"], "load_cv"),
    ):
        assert command(["compare", *words, outputs]) == 2
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1


def test_one_document_has_a_difference_and_no_test(world) -> None:
    a, b = world["hash"][0], world["switch"][0]
    kept = {run: (run.path / "documents.parquet").read_bytes() for run in (a, b)}
    for run in kept:
        leave_documents(run.path, 0.1 * (run is a), 1, 1)
    (only,) = compare_by_document(fresh([a]), fresh([b])).outcomes
    assert only.note == "one document only" and only.verdict == "" and only.p_corrected is None
    for run, content in kept.items():
        (run.path / "documents.parquet").write_bytes(content)


def leave_items(run: StoredRun, better: float, shots: int = 0) -> StoredRun:
    """60 passages of 5 items; a better model has more of the same items right."""
    rng = np.random.default_rng(3)
    hard = (rng.normal(0, 1, (60, 1)) + rng.normal(0, 0.4, (60, 5))).ravel()
    rows = {"task": "t", "item": np.arange(300), "group": [f"g{i // 5:02}" for i in range(300)]}
    pd.DataFrame(rows | {"score": (hard < better).astype(float)}).to_parquet(run.path / "items.parquet")
    content = json.loads((run.path / "summary.json").read_text())
    write_json(run.path / "summary.json", content | {"downstream": {"t": {"settings": {"fewshot": shots}}}})
    return StoredRun(run.path)


def test_downstream_items_are_paired_and_items_of_a_passage_are_one(world) -> None:
    a, b = world["hash"][0], world["switch"][0]
    refuse("has no items.parquet", [a], [b], SpectraError, "downstream")
    found = compare_by_document([leave_items(a, 0.25)], [leave_items(b, 0.0)], "downstream")
    (task,) = found.outcomes
    scores = [run.scores("items")["score"].to_numpy() for run in fresh([a, b])]
    difference = scores[0] - scores[1]
    assert (task.domain, task.documents, task.tokens, task.verdict) == ("t", 60, 300, "better")
    assert task.difference == pytest.approx(difference.mean())
    unpaired = np.sqrt(sum(values.var(ddof=1) / 300 for values in scores))
    by_passage = difference.reshape(60, 5).mean(axis=1)
    assert task.se == pytest.approx(by_passage.std(ddof=1) / np.sqrt(60))
    assert task.se < 0.6 * unpaired
    leave_items(a, 0.25, shots=5)
    refuse("was scored on other items of tasks", [a], [b], metric="downstream")
