"""The frame of an analysis: parts and their needs, the command line, the folder of results, the trace."""

from __future__ import annotations

import io
import json
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from made_subjects import (
    at_random,
    by_domain,
    held_out,
    made_request,
    made_subject,
    made_tokenizer,
    two_of_four,
    without_labels,
)
from rich.console import Console

from spectra_exp.config.verb import read_options
from spectra_exp.data.documents import Document
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.interpret import registry
from spectra_exp.interpret.analysis import _progress
from spectra_exp.interpret.command import main
from spectra_exp.interpret.options import Options, check_options
from spectra_exp.interpret.parts.cases import MOST_TOKENS, cases
from spectra_exp.interpret.registry import Empty, Part, Request, chosen_parts, parts
from spectra_exp.interpret.results import AnalysisFolder, Result, picture_bytes, read_index
from spectra_exp.interpret.trace import HeldOut, trace_text

PACKAGE_PARTS = {
    "load",
    "keywords",
    "contexts",
    "neighbours",
    "affinity",
    "vocabulary",
    "separation",
    "hidden_map",
    "expert_map",
    "cases",
    "explore",
}


def test_parts_are_found_by_themselves_and_say_what_they_are() -> None:
    found = parts()
    assert found.keys() >= PACKAGE_PARTS
    assert all(part.title and part.function.__doc__ for part in found.values())


def test_a_missing_need_is_an_empty_result_with_the_reason() -> None:
    unlabelled = made_request(by_domain, text=without_labels(held_out()))
    assert "domain labels" in parts()["affinity"].run(unlabelled).empty
    assert parts()["load"].run(unlabelled).empty is None
    dense = made_request()
    reasons = {name: parts()[name].run(dense).empty for name in PACKAGE_PARTS}
    assert all("dense" in reason for reason in reasons.values())


def test_what_a_part_finds_empty_does_not_stop_it() -> None:
    def raises(request):
        raise Empty("nothing here")

    assert Part("x", "X", (), 0, raises).run(made_request(by_domain)).empty == "nothing here"


def test_needs_are_asked_in_order_and_a_later_one_may_read_what_an_earlier_grants() -> None:
    order = [registry.ROUTED, registry.DISTRIBUTION]
    part = Part("x", "X", tuple(order), 0, lambda request: Result())
    assert "dense" in part.run(made_request()).empty
    assert "no distribution" in part.run(made_request(by_domain, with_probs=False)).empty
    assert part.run(made_request(by_domain)).empty is None


def test_two_parts_of_one_name_are_refused() -> None:
    def load(request):
        """Another."""

    assert "load" in parts()
    with pytest.raises(ValueError, match="'load' is registered twice"):
        registry.part("Load")(load)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["rn=x"], "did you mean 'run'?"),
        (["run=x", "run=y"], "was given twice"),
        (["run"], "'run' is not key=value"),
        (["--run=x"], "'--run=x' is not key=value"),
        (["run="], "run: has no value"),
        (["parts=load"], "give either run=PATH or study=NAME"),
        (["run=x", "study=core"], "give either run=PATH or study=NAME"),
        (["study=core", "out=x"], "goes with neither out nor against"),
        (["run=x", "parts=,"], "parts: ',' names none"),
        (["run=x", "tokens=0"], "tokens: 0 was given; must be at least 1"),
        (["run=x", "tokens=1e5"], "tokens: '1e5' is not a whole number"),
        (["run=x", "seed=-1"], "seed: -1 was given; must be at least 0"),
        (["run=x", "device=gpu"], "device: 'gpu' is not accepted"),
    ],
)
def test_wrong_input_is_one_line(typed: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_options(read_options(Options, typed))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_wrong_names_end_the_command_before_any_work(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    (tmp_path / "runs" / "switch-topk-e8-s0-0123abcd").mkdir(parents=True)
    cases = [
        (["run=x", "parts=lod"], "did you mean 'load'?"),
        (["run=swich-topk-e8-s0-0123abcd"], "did you mean 'switch-topk-e8-s0-0123abcd'?"),
        (["run=switch-topk-e8-s0-0123abcd"], "holds neither a run (config.yaml) nor a model (config.json)"),
        (["run=x", "text= "], "text: is empty"),
        (["run=x", f"texts={tmp_path}/none.txt"], "there is no file"),
        (["study=core"], "error: study=core: no completed run of study 'core'"),
    ]
    for typed, words in cases:
        assert main(typed) == (1 if typed == ["study=core"] else 2)
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ") and words in said


def test_help_names_every_key_and_part(capsys) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in [*(f.name for f in fields(Options)), *parts()])


def test_parts_are_run_in_the_registrys_order() -> None:
    assert [part.name for part in chosen_parts(("contexts", "load"))] == ["load", "contexts"]
    assert len(chosen_parts(())) == len(parts())


def test_a_folder_keeps_parts_of_the_same_model_and_drops_those_of_another(tmp_path) -> None:
    table = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", "y"]})
    folder = AnalysisFolder(tmp_path, {"model": "one"})
    folder.write("load", "Load", Result(tables={"t": table}, data={"d": {"x": float("nan")}}))
    AnalysisFolder(tmp_path, {"model": "one"}).write("affinity", "Affinity", Result(empty="no labels"))
    assert set(read_index(tmp_path)["parts"]) == {"load", "affinity"}
    assert (tmp_path / "load/t.csv").read_text() == "a,b\n1,x\n,y\n"
    assert json.loads((tmp_path / "load/d.json").read_text()) == {"x": None}
    # Made again with less, and then empty: nothing old stays.
    folder = AnalysisFolder(tmp_path, {"model": "one"})
    folder.write("load", "Load", Result(tables={"t": table}))
    assert [path.name for path in (tmp_path / "load").iterdir()] == ["t.csv"]
    folder.write("load", "Load", Result(empty="none"))
    assert not (tmp_path / "load").exists()
    folder.write("load", "Load", Result(tables={"t": table}))
    AnalysisFolder(tmp_path, {"model": "two"}).write("affinity", "Affinity", Result(empty="no labels"))
    assert set(read_index(tmp_path)["parts"]) == {"affinity"} and not (tmp_path / "load").exists()


def test_tokens_that_look_like_formulas_are_text_in_a_spreadsheet(tmp_path) -> None:
    table = pd.DataFrame(
        {"=A1": ["=1+1", "a"], "x": [1 / 3, np.nan], "n": [3, 4], "@": [None, "-1"], "ok": [True, False]}
    )
    folder = AnalysisFolder(tmp_path, {"model": "one"})
    folder.write("contexts", "Contexts", Result(tables={"t": table}))
    assert (tmp_path / "contexts/t.csv").read_text() == "'=A1,x,n,'@,ok\n'=1+1,0.333333,3,,True\na,,4,-1,False\n"


def test_segments_are_shown_as_they_were_written(tmp_path) -> None:
    from spectra_exp.interpret.page import _segments

    row = {"name": "run", "case": 1, "segment": 0, "layer": 0, "text": "=1+1", "loss": 1.5}
    experts = {"expert": 1, "share": 0.5, "second": 2, "second_share": 0.25}
    AnalysisFolder(tmp_path, {"model": "one"}).write(
        "cases", "", Result(tables={"segments": pd.DataFrame([row | experts])})
    )
    (shown,) = _segments(tmp_path / "cases/segments.csv").content.rows
    assert shown.cells[0] == "=1+1"


def test_a_picture_is_the_same_twice() -> None:
    def draw(figure):
        figure.add_subplot().plot([1, 2], [3, 4])

    assert picture_bytes(draw) == picture_bytes(draw)


def test_the_trace_is_the_routing_executed_whatever_the_batches() -> None:
    subject = made_subject(two_of_four, by_domain, top_k=2)
    trace = subject.trace
    documents = held_out().document_ids_MS.ravel()
    assert (trace.experts_NLK[:, 0] == two_of_four(trace.token_ids_N, documents)).all()
    # The second layer uses one expert: the other place is padded.
    assert (trace.experts_NLK[:, 1, 1] == -1).all() and (trace.weights_NLK[:, 1, 1] == 0).all()
    assert trace.used(0).sum(axis=1).tolist() == [2] * trace.num_tokens
    assert trace.statistics[0].counts_E.sum() == 2 * trace.num_tokens
    assert np.isnan(trace.losses_N[trace.positions_N == 0]).all()
    assert np.isfinite(trace.losses_N[trace.positions_N > 0]).all()
    hidden = subject.engine.embedding_Vd[trace.token_ids_N[trace.sample_H]].numpy()
    assert (trace.hidden_LHd[1] == hidden).all()
    assert trace.probs_NLE.astype(float).sum(axis=2) == pytest.approx(np.ones((trace.num_tokens, 2)), abs=0.01)


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_done_is_told_with_its_place_among_the_parts(terminal: bool) -> None:
    told = io.StringIO()
    with _progress(Console(file=told, force_terminal=terminal, width=80), 2) as (step, track):
        assert list(track(range(3))) == [0, 1, 2]
        step("load", 0)
        step("load: half of it")
        step("affinity", 1)
    if terminal:
        assert all(word in told.getvalue() for word in ("affinity", "1/2"))
    else:
        assert told.getvalue().splitlines() == ["opening", "1/2 load", "2/2 affinity"]


def test_a_trace_of_many_tokens_stays_small() -> None:
    rows = 100_352 // 64
    text = HeldOut(
        np.arange(rows * 64).reshape(rows, 64) % 300,
        np.zeros((rows, 64), np.int64),
        np.zeros((rows, 64), np.int64),
        ["one"],
    )
    engine = made_subject(at_random, at_random, text=text).engine
    engine.rows_at_once = lambda length: 512
    trace = trace_text(engine, text, seed=0)
    assert trace.num_tokens > 100_000 and len(trace.sample_H) == 3000
    # Of each token: ids and places, and for each layer experts, weights, entropy and half a distribution.
    arrays = [array for array in vars(trace).values() if isinstance(array, np.ndarray)]
    assert sum(array.nbytes for array in arrays) < 100_352 * (64 + 2 * (2 + 4 + 4 + 8)) + 10**6


def test_cases_follow_the_texts_given_for_both_models() -> None:
    texts = [Document("zebra and hammer. green saw\nnear", "x", "mine"), Document("a", "x", "short")]
    request = Request(made_subject(by_domain), made_subject(two_of_four, top_k=2, name="other"), texts)
    result = cases(request)
    first, short = result.data["cases"]
    assert first["title"] == "mine" and [side["name"] for side in first["sides"]] == ["made", "other"]
    assert "".join(first["sides"][0]["pieces"]) == texts[0].text
    assert len(short["sides"][0]["pieces"]) == 1
    segments = result.tables["segments"]
    mine = segments[(segments["case"] == 1) & (segments["name"] == "other")]
    assert list(mine["text"]) == ["zebra and hammer.", " green saw\n", "near"]
    # A text alone is document 0: expert 0 with two thirds of the weight, then expert 1.
    assert set(zip(mine["expert"], mine["second"], strict=True)) == {(0, 1)}
    assert mine["share"].to_numpy() == pytest.approx(np.full(3, 2 / 3))
    assert segments[segments["case"] == 2]["loss"].isna().all()
    assert picture_bytes(result.pictures["tokens"])


def test_cases_without_a_text_are_one_document_of_each_domain_and_long_ones_are_cut() -> None:
    result = cases(made_request(by_domain))
    assert [case["title"] for case in result.data["cases"]] == ["animals", "colours", "numbers", "tools"]
    long = Request(made_subject(by_domain), None, [Document("zebra " * 2000, "x", "long")])
    cut = cases(long)
    assert len(cut.data["cases"][0]["sides"][0]["pieces"]) == MOST_TOKENS and "cut" in cut.notes[0]


def test_markers_and_parts_of_letters_are_named() -> None:
    subject = made_subject(by_domain)
    assert subject.piece(0) == "<|endoftext|>" and subject.spelling(0) == ""
    half = made_tokenizer().encode("é", add_special_tokens=False).ids
    assert len(half) == 2 and subject.spelling(half[0]) == "" and subject.piece(half[0])
