"""The analysis of runs of this project, from the command line to the files, and how the report leads to them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.interpret.analysis import newest_of_study
from spectra_exp.interpret.command import main
from spectra_exp.interpret.opening import open_subject
from spectra_exp.interpret.parts import maps
from spectra_exp.interpret.registry import Request, parts
from spectra_exp.interpret.results import read_index
from spectra_exp.reporting.make_report import write_report
from spectra_exp.reporting.material import gather
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.plan import plan
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths
from spectra_exp.training.execute import execute

TINY = [
    *MODEL,
    "data.sequence_length=64",
    "data.train_words=20000",
    "data.validation_words=8000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=4096",
    "data.probe_tokens=256",
    "trainer.max_steps=6",
    "trainer.batch_size=4",
    "logger.progress=false",
    "study=core",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a run of SPECTRA and of two seeds of Switch."""
    prepare_environment()
    outputs = tmp_path_factory.mktemp("outputs")
    typed = {
        "spectra": ["router=spectra", "router.dim=4"],
        "switch": ["baseline=switch_top2"],
        "switch_later": ["baseline=switch_top2", "seed=1"],
    }
    found = {}
    for name, own in typed.items():
        planned = plan(load_experiment([*TINY, f"outputs={outputs}", *own]))
        assert execute(planned, "") == "completed"
        found[name] = planned.folder.path
    return found


@pytest.fixture(autouse=True)
def small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST_TOKENS", 60)


def opened(path: Path, tokens: int | None = None):
    return open_subject(
        "run", str(path), path.parent.parent, tokens=tokens, texts=None, seed=0, device=torch.device("cpu")
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["spectra", "switch"])
def test_the_trace_is_of_what_the_run_reported(runs, name: str) -> None:
    subject = opened(runs[name])
    trace, summary = subject.trace, subject.run.summary
    assert np.nanmean(trace.losses_N.astype(float)) == pytest.approx(summary["metrics"]["val_loss"], abs=1e-6)
    snapshot = load_snapshot(snapshot_paths(subject.run.folder.routing)[6])
    assert [stats.counts_E.tolist() for stats in trace.statistics] == snapshot.counts_LE.tolist()
    assert trace.experts_NLK[:256].transpose(1, 0, 2).tolist() == snapshot.probe_experts_LPK.tolist()
    assert subject.step == 6 and subject.run.evaluator.run(subject.engine.model).losses["val_loss"] == pytest.approx(
        summary["metrics"]["val_loss"]
    )


def test_more_and_fewer_tokens_can_be_looked_at(runs, caplog) -> None:
    assert opened(runs["switch"], 200).held_out.num_tokens == 192
    assert opened(runs["switch"], 1).held_out.num_tokens == 64
    more = opened(runs["switch"], 6000).held_out
    assert more.num_tokens == 5952
    usual = opened(runs["switch"]).held_out
    assert (more.token_ids_MS[: len(usual.token_ids_MS)] == usual.token_ids_MS).all()
    assert not caplog.records
    assert opened(runs["switch"], 10**6).held_out.num_tokens < 10**5
    assert "held-out split: all are taken" in caplog.text


def test_documents_without_a_domain_belong_to_none(runs, tmp_path: Path) -> None:
    lines = [{"text": f"zebra number {i} " * 30} | ({"domain": "animals"} if i % 2 else {}) for i in range(200)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    typed = [o for o in TINY if not o.startswith(("data.", "study", "trainer.max"))]
    planned = plan(
        load_experiment(
            [
                *typed,
                f"outputs={tmp_path}",
                "baseline=switch_top2",
                "data=files",
                f"data.train={tmp_path}/train.jsonl",
                "data.sequence_length=64",
                "data.vocabulary_size=300",
                "data.evaluation_tokens=512",
                "data.probe_tokens=64",
                "trainer.max_steps=1",
            ]
        )
    )
    assert execute(planned, "") == "completed"
    subject = opened(planned.folder.path)
    labelled = {subject.domains[d] for d in np.unique(subject.trace.domains_N) if d >= 0}
    assert labelled == {"animals"} and (subject.trace.domains_N == -1).any()
    assert "domain labels" in parts()["affinity"].run(Request(subject)).empty


@pytest.mark.full
def test_the_command_writes_the_same_files_twice(runs, capsys) -> None:
    run = runs["spectra"]
    # Others may have put theirs there before.
    shutil.rmtree(run / "analysis", ignore_errors=True)
    assert main([f"run={run}", "tokens=1024"]) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert page == run / "analysis/index.html" and page.is_file()
    index = read_index(run / "analysis")
    assert index["subject"]["step"] == 6 and index["subject"]["domains"]
    for name, made in index["parts"].items():
        assert made["empty"] or made["files"], name
        assert all((run / "analysis" / name / file).stat().st_size for file in made["files"])
        stems = {Path(file).stem for file in made["files"] if not file.endswith(".png")}
        assert {Path(file).stem for file in made["files"] if file.endswith(".png")} <= stems
    first = contents(run / "analysis")
    shutil.rmtree(run / "analysis")
    assert main([f"run={run}", "tokens=1024"]) == 0
    assert contents(run / "analysis") == first


def test_one_part_made_again_leaves_the_others(runs) -> None:
    run = runs["switch"]
    assert main([f"run={run}", "parts=load,affinity"]) == 0
    before = contents(run / "analysis/affinity")
    assert main([f"run={run}", "parts=load"]) == 0
    assert contents(run / "analysis/affinity") == before
    assert set(read_index(run / "analysis")["parts"]) == {"load", "affinity"}
    # On other tokens it is another analysis.
    assert main([f"run={run}", "parts=load", "tokens=1024"]) == 0
    assert set(read_index(run / "analysis")["parts"]) == {"load"} and not (run / "analysis/affinity").exists()


def test_two_runs_go_into_a_folder_of_their_own_and_the_report_links_both(runs, monkeypatch) -> None:
    run, other = runs["spectra"], runs["switch"]
    outputs = run.parent.parent
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(outputs))
    typed = [f"run={run.name}", "parts=cases,expert_map"]
    assert main(typed) == 0 and main([*typed, f"against={other.name}", "text=One jar holds 6 beads."]) == 0
    cases = json.loads((run / f"analysis/against-{other.name}/cases/cases.json").read_text())
    assert [side["name"] for side in cases[0]["sides"]] == [run.name, other.name]
    write_report(gather(outputs))
    page = outputs / "report/runs" / f"{run.name}.html"
    targets = [part.partition('"')[0] for part in page.read_text().split('href="')[1:] if "analysis" in part[:200]]
    assert len(targets) == 2
    assert all((page.parent / target).resolve().is_file() for target in targets)
    others = (outputs / "report/runs" / f"{runs['switch_later'].name}.html").read_text()
    assert "/analysis/" not in others


def test_the_newest_run_of_each_method_of_a_study(runs) -> None:
    outputs = runs["spectra"].parent.parent
    assert newest_of_study(outputs, "core") == sorted([runs["spectra"].name, runs["switch_later"].name])


def test_a_run_made_again_loses_its_analysis(runs, tmp_path: Path) -> None:
    copy = tmp_path / runs["switch"].name
    shutil.copytree(runs["switch"], copy)
    (copy / "analysis").mkdir(exist_ok=True)
    RunFolder(tmp_path, copy.name).clear()
    assert not (copy / "analysis").exists()


def test_what_cannot_be_analysed_is_one_line(runs, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "runs" / runs["switch"].name
    shutil.copytree(runs["switch"], copy)
    config = (copy / "config.yaml").read_text()

    def said() -> str:
        assert main([f"run={copy}", "parts=load"]) == 1
        return capsys.readouterr().err.splitlines()[-1]

    (copy / "config.yaml").write_text(config.replace("generator_seed: 0", "generator_seed: 1"))
    assert "its data is not what the run was trained on" in said()
    (copy / "config.yaml").write_text("data: [")
    assert "not a run's configuration" in said()
    (copy / "config.yaml").write_text(config)
    checkpoint = next((copy / "checkpoints").iterdir())
    assert main([f"run={checkpoint}", "parts=load"]) == 2
    assert "is a checkpoint of a run; name the run's folder" in capsys.readouterr().err
    next(checkpoint.glob("*.safetensors")).write_bytes(b"cut")
    assert "no whole checkpoint; run it again: python train.py " in (line := said())
    assert line.endswith(" force=true")
