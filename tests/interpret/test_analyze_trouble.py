"""An analysis in trouble: a second one at work, damaged files, a run that still trains, an earlier one of another."""

from __future__ import annotations

import inspect
import io
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_subjects import by_domain, held_out, made_documents, made_subject
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from small_run import MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.interpret import open_run
from spectra_exp.interpret.analysis import differing_ends, distinct_names
from spectra_exp.interpret.command import main
from spectra_exp.interpret.opening import open_subject
from spectra_exp.interpret.page import write_page
from spectra_exp.interpret.parts import ambiguity, boundaries, causal, experts_off
from spectra_exp.interpret.parts.contexts import context
from spectra_exp.interpret.parts.landscape import path_points
from spectra_exp.interpret.parts.oscillation import _joined
from spectra_exp.interpret.registry import HISTORY, RUN, Part, Request, parts
from spectra_exp.interpret.results import AnalysisFolder, Result, picture_bytes, read_index
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.lock import RunLock
from spectra_exp.runs.plan import plan
from spectra_exp.training.execute import execute

TINY = [
    *MODEL,
    "data.sequence_length=64",
    "data.train_words=20000",
    "data.validation_words=8000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=2048",
    "data.probe_tokens=256",
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "trainer.log_every=1",
    "trainer.keep_checkpoints=fractions",
    "logger.progress=false",
    "data.hold_out_domain=code",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a run of Switch and of a dense one."""
    prepare_environment()
    outputs, found = tmp_path_factory.mktemp("outputs"), {}
    for name in ("switch_top2", "dense"):
        planned = plan(load_experiment([*TINY, f"outputs={outputs}", f"baseline={name}"]))
        assert execute(planned, "") == "completed"
        found[name] = planned.folder.path
    return found


@pytest.fixture
def run(made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the run of Switch, to be damaged, with the data already read."""
    copy = tmp_path / "runs" / made["switch_top2"].name
    shutil.copytree(made["switch_top2"], copy, ignore=shutil.ignore_patterns("analysis"))
    (tmp_path / "cache").symlink_to(made["switch_top2"].parent.parent / "cache")
    return copy


def opened(path: Path):
    return open_subject(
        "run", str(path), path.parent.parent, tokens=256, texts=None, seed=0, device=torch.device("cpu")
    )


def test_a_dense_run_beside_a_routed_one_stops_no_part(made, tmp_path: Path) -> None:
    # The map of hidden states takes most of the time and skips a model without layers.
    both = ",".join(name for name, part in parts().items() if part.both and name != "hidden_map")
    typed = [f"run={made['switch_top2']}", f"against={made['dense']}", f"parts={both},load", f"out={tmp_path}"]
    assert main([*typed, "tokens=512"]) == 0
    index = read_index(tmp_path)
    # So little text has too few documents to join.
    assert {name for name, part in index["parts"].items() if part["empty"]} == {"boundaries"}
    label = index["subject"]["label"]
    assert [name for name, part in index["parts"].items() if f"Of {label} only." in part["notes"]] == ["load"]


def test_a_frame_without_rows_takes_no_types_away() -> None:
    rows = pd.DataFrame({"run": ["a"], "per_step": [0.5]})
    empty = pd.DataFrame(columns=["run", "per_step"])
    assert _joined([rows, empty])["per_step"].dtype == float and _joined([empty]).empty


def test_a_part_says_that_it_shows_the_first_run_alone_unless_it_reads_both() -> None:
    for name, part in parts().items():
        assert part.both == ("request.subjects" in inspect.getsource(part.function)), name
    request = Request(made_subject(by_domain, name="one"), made_subject(by_domain, name="other"))
    assert parts()["affinity"].run(request).notes[0] == "Of one only."
    assert "Of one only." not in parts()["expert_map"].run(request).notes


def test_what_only_a_run_has_is_said_of_a_stock_model_first() -> None:
    request = Request(made_subject(by_domain))
    first = {name: [need.missing for need in part.needs if not need.met(request)] for name, part in parts().items()}
    lacking = {name for name, missing in first.items() if missing[:1] == [RUN.missing]}
    assert lacking == {"experts_off", "causal", "unseen_domain", "oscillation", "gradients", "landscape"}
    assert all(part.needs.index(RUN) < part.needs.index(HISTORY) for part in parts().values() if HISTORY in part.needs)


def test_a_damaged_side_file_empties_its_parts_alone(run: Path, capsys) -> None:
    (run / "history.parquet").write_bytes(b"cut")
    assert main([f"run={run}", "parts=load,gradients", "tokens=256"]) == 1
    said = capsys.readouterr()
    assert "error: gradients: " in said.err and "not readable as a run's history" in said.err
    made = read_index(run / "analysis")["parts"]
    assert made["load"]["empty"] is None and "not readable" in made["gradients"]["empty"]
    assert Path(said.out.strip()).is_file()


def test_the_page_of_what_is_done_is_written_when_a_part_breaks(run: Path, monkeypatch) -> None:
    usual = Part.run

    def broken(part: Part, request: Request) -> Result:
        if part.name == "contexts":
            raise RuntimeError("a fault")
        return usual(part, request)

    monkeypatch.setattr(Part, "run", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        main([f"run={run}", "parts=load,contexts", "tokens=256"])
    assert 'id="load"' in (run / "analysis/index.html").read_text()


def test_a_second_analysis_at_once_is_refused(run: Path, capsys) -> None:
    with RunLock(run / "analysis"):
        assert main([f"run={run}", "parts=load", "tokens=256"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {run / 'analysis'}: in use by process")
    assert read_index(run / "analysis") is None


def test_an_earlier_analysis_of_other_text_goes_with_a_word_and_not_before_there_is_another(run: Path, capsys) -> None:
    folder = run / "analysis"
    assert main([f"run={run}", "parts=load", "tokens=256"]) == 0
    assert "goes when" not in capsys.readouterr().err
    assert main([f"run={run}", "parts=load", "tokens=512", "seed=3"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "goes when" in line]
    assert len(said) == 1 and "tokens 256 then, 512 now; seed 0 then, 3 now" in said[0]
    other = AnalysisFolder(folder, read_index(folder) | {"seed": 9, "parts": {}})
    assert (folder / "load/load.csv").is_file()
    with pytest.raises(ZeroDivisionError):
        other.write("affinity", "Affinity", Result(pictures={"broken": lambda figure: 1 / 0}))
    assert (folder / "load/load.csv").is_file() and read_index(folder)["seed"] == 3


def test_a_checkpoint_removed_while_it_is_read_is_looked_up_again(run: Path, monkeypatch) -> None:
    usual, removed = open_run.load_checkpoint, []

    def pruned(path: Path):
        if len(removed) < most:
            removed.append(path)
            shutil.rmtree(path)
        return usual(path)

    monkeypatch.setattr(open_run, "load_checkpoint", pruned)
    most = 1
    assert opened(run).step == 3 and [path.name for path in removed] == ["step-00000004"]
    most = 10
    with pytest.raises(SpectraError, match="was removed 3 times while it was read; it still trains"):
        opened(run)


def test_a_run_without_its_configuration_is_told_in_one_line(run: Path) -> None:
    (run / "config.yaml").unlink()
    with pytest.raises(SpectraError, match=r"config\.yaml: is missing"):
        open_run.open_run(run, None, 0, torch.device("cpu"))


def test_a_checkpoint_that_names_code_is_refused_without_a_question(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("it asks"))
    shutil.copytree(run, tmp_path / run.name)
    copied = RunFolder(tmp_path, run.name)
    shutil.rmtree(copied.checkpoints_folder)
    staged = copied.stage_checkpoint(4)
    (staged / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    (staged / "evil.py").write_text("raise SystemExit('this was run')")
    copied.commit_checkpoint(staged, 4)
    with pytest.raises(SpectraError, match="of model_type 'evil', which is no model of a run"):
        open_run.newest_model(copied, None)


def test_a_stop_of_the_path_that_was_removed_is_left_out(run: Path, monkeypatch) -> None:
    subject = opened(run)
    routers = {n: p for n, p in subject.engine.model.named_parameters() if ".router." in n}
    listed = subject.run.folder.checkpoints()
    shutil.rmtree(run / "checkpoints/step-00000002")
    monkeypatch.setattr(RunFolder, "checkpoints", lambda folder: listed)
    assert sorted(path_points(subject, routers)[0]) == [0, 1, 3]


def test_an_unfinished_run_is_called_so(run: Path, tmp_path: Path) -> None:
    subject = opened(run)
    for status, words in (("running", True), ("completed", False)):
        own = replace(subject, run=replace(subject.run, summary={"status": status}))
        folder = AnalysisFolder(tmp_path / status, {"subject": own.head(), "against": None, "seed": 0})
        folder.write("load", "Load", Result(empty="nothing"))
        assert read_index(folder.path)["subject"]["unfinished"] == words
        assert (">unfinished</span>" in write_page(folder.path).read_text()) == words


def test_the_command_on_the_page_names_both_models_as_they_were_typed(tmp_path: Path) -> None:
    one = replace(made_subject(by_domain, name="final"), typed="/models/a b/final")
    other = made_subject(by_domain, name="second")
    folder = AnalysisFolder(tmp_path, {"subject": one.head(), "against": other.head(), "seed": 0})
    folder.write("cases", "Cases", Result(empty="nothing"))
    page = write_page(tmp_path).read_text()
    assert "interpret &#39;run=/models/a b/final&#39; against=second parts=cases" in page


def test_figures_without_bounds_are_drawn_all_the_same() -> None:
    """One document gives no interval: the points stay. Planted in each: rows without bounds."""
    subject = made_subject(by_domain, text=held_out(made_documents(1)[:2]))
    bounds = {"added_low": [None], "added_high": [None]}
    table = pd.DataFrame({"layer": [0], "share": [0.2], "distance": [0.5], "added": [0.1]} | bounds)
    tenths = pd.DataFrame({"entropy": [0.5], "loss": [2.0], "loss_low": [None], "loss_high": [None]})
    drawings = (
        lambda figure: experts_off._draw(figure, table, subject),
        lambda figure: causal._draw_swaps(figure, table),
        lambda figure: ambiguity._draw(figure, tenths, None),
    )
    for draw in drawings:
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture_bytes(lambda figure, d=draw, s=seen: (d(figure), s.extend(figure.axes[0].containers)))
        assert [len(container[0].get_xdata()) for container in seen] == [1]


def test_texts_without_any_text_are_refused_without_keys_of_the_training(tmp_path: Path, capsys) -> None:
    for name, content in (("empty.jsonl", '{"text": " "}'), ("other.jsonl", '{"body": "a"}'), ("empty.txt", "\n \n")):
        (tmp_path / name).write_text(content)
        assert main(["run=any", f"texts={tmp_path / name}"]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: texts: ") and "data." not in line and line.count("\n") == 1


def test_labels_are_told_apart_by_what_differs_in_the_names() -> None:
    assert differing_ends(["switch-e4-s0-aa", "switch-e4-s1-bb"]) == ["s0-aa", "s1-bb"]
    assert differing_ends(["a-final", "b-final"]) == ["a-final", "b-final"]
    assert differing_ends(["run", "run-2"]) == ["run", "2"]


def test_legends_name_models_by_their_labels() -> None:
    subjects = [replace(made_subject(by_domain, name="a-long-name-of-a-run-" + end), label=end) for end in "xy"]
    assert Request(*subjects).labels == {subject.name: subject.label for subject in subjects}
    curves = pd.DataFrame(
        {
            "run": [s.name for s in subjects],
            "layer": "all",
            "curve": "before",
            "distance": 0,
            "mean": 0.5,
            "low": 0.4,
            "high": 0.6,
        }
    )
    seen = []
    picture_bytes(
        lambda figure: (
            boundaries._draw(figure, curves, Request(*subjects).labels),
            seen.extend(text.get_text() for text in figure.axes[0].get_legend().get_texts()),
        )
    )
    assert seen == ["x: before", "x: after", "y: before", "y: after"]


def test_samples_hold_no_marker_beside_the_token_marked() -> None:
    subject = made_subject(by_domain)
    assert subject.markers and any(subject.piece(i).startswith("<|") for i in subject.markers)
    table = parts()["contexts"].run(Request(subject)).tables["contexts"]
    assert not (table["before"] + table["after"]).str.contains("<|", regex=False).any()
    # Planted: spelled as the token itself is, the ends of documents show.
    ends = np.flatnonzero(np.isin(subject.trace.token_ids_N, list(subject.markers)))
    assert "<|" in context(subject.trace, int(ends[0]) - 1, subject.piece, subject.piece)[2]


def test_a_letter_without_a_glyph_is_no_warning() -> None:
    def fill(figure) -> None:
        figure.text(0.5, 0.5, "\U0001fae8")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        picture = picture_bytes(fill)
        assert picture.startswith(b"\x89PNG") and told == []
        # Planted fault: matplotlib left to itself does warn of this letter.
        figure = Figure()
        fill(figure)
        FigureCanvasAgg(figure).print_png(io.BytesIO())
        assert any("Glyph" in str(warning.message) for warning in told)


def test_a_backend_inherited_from_a_notebook_is_not_loaded() -> None:
    code = (
        "from spectra_exp.interpret.command import main; main(['run=/nowhere'])\n"
        "from spectra_exp.interpret.results import picture_bytes\n"
        "print(len(picture_bytes(lambda figure: figure.add_subplot().plot([1, 2]))))"
    )
    own = os.environ | {"MPLBACKEND": "module://of_a_notebook.elsewhere"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=own)
    assert answer.returncode == 0 and int(answer.stdout) > 1000, answer.stderr


@pytest.mark.parametrize("place", ["", "load", "load/load.csv"])
def test_a_file_of_the_wrong_kind_in_the_way_of_a_part_stops_no_other(run: Path, place: str, capsys) -> None:
    assert main([f"run={run}", "parts=load,contexts", "tokens=256"]) == 0
    path = run / "analysis" / place
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("mine")
    else:
        path.unlink()
        path.mkdir()
    capsys.readouterr()
    status = main([f"run={run}", "parts=load,contexts", "tokens=256"])
    if not place:
        assert status == 1 and f"{path}: a file lies where the analysis belongs" in capsys.readouterr().err
        return
    index = read_index(run / "analysis")
    assert index["parts"]["contexts"]["empty"] is None and (run / "analysis/contexts/contexts.csv").is_file()
    if place == "load":
        assert status == 0 and (run / "analysis/load/load.csv").is_file()
    else:
        assert status == 1 and "error: load: " in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[" * 200_000, '{"parts": {"load": 5}}', '{"parts": 3}', "mine"])
def test_a_damaged_index_or_file_of_an_earlier_analysis_stops_nothing(run: Path, content: str) -> None:
    assert main([f"run={run}", "parts=explore,contexts", "tokens=256"]) == 0
    (run / "analysis/explore/explore.json").write_text("{")
    page = write_page(run / "analysis").read_text()
    assert "Its files are damaged" in page and 'id="contexts"' in page
    (run / "analysis/index.json").write_text(content)
    assert main([f"run={run}", "parts=load", "tokens=256"]) == 0
    assert set(read_index(run / "analysis")["parts"]) == {"load"}


def test_names_are_told_apart_by_as_many_folders_as_it_takes() -> None:
    def names(*paths: str) -> list[str]:
        return distinct_names([replace(made_subject(by_domain, name="final"), path=Path(path)) for path in paths])

    assert names("/m/a/final", "/m/b/final") == ["a-final", "b-final"]
    assert names("/m/a/final", "/n/a/final") == ["m-a-final", "n-a-final"]
    assert names("/a/final", "/m/a/final") == ["a-final", "m-a-final"]
