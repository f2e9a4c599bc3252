"""What finished runs lack is computed from what they kept, and nothing that they have is changed."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from made_studies import make_study
from small_run import MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.interpret.remeasure import main, remeasure
from spectra_exp.measure.balance import coefficient_of_variation, gini
from spectra_exp.reporting.collect import collect
from spectra_exp.runs.history import History
from spectra_exp.runs.plan import plan
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import change_summary, sealed
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
    "logger.progress=false",
    "baseline=switch_top2",
]
# From counts, from the fractions of training, from its logged steps, and from the model.
NEWER = ("load_gini", "usage_variance", "max_vio_swing", "expert_overlap")


def forget(run: Path, *names: str) -> None:
    """Make the run one of a time that did not know these metrics."""
    content = json.loads((run / "summary.json").read_text())
    was_sealed = content.pop("seal", None) is not None
    for group in ("metrics", "metrics_by_layer", "floors"):
        for name in names:
            content[group].pop(name, None)
    history = History.load(run / "history.parquet")
    gone = {*names, *(f"{name}_floor" for name in names)}
    history._rows = {key: row for key, row in history._rows.items() if key[3] not in gone}
    history.save(run / "history.parquet")
    write_json(run / "summary.json", sealed(run, content) if was_sealed else content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_environment()
    outputs = tmp_path_factory.mktemp("outputs")
    planned = plan(load_experiment([*TINY, f"outputs={outputs}"]))
    assert execute(planned, "") == "completed"
    return planned.folder.path


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run, with its data."""
    copy = tmp_path / "runs" / trained.name
    shutil.copytree(trained, copy)
    (tmp_path / "cache").symlink_to(trained.parent.parent / "cache")
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    return copy


def test_what_is_newer_than_a_run_is_what_the_run_would_have_measured(run: Path, trained: Path, capsys) -> None:
    forget(run, *NEWER)
    assert main([f"run={run.name}"]) == 0
    said = capsys.readouterr().out
    assert "2 from its counts: load_gini, usage_variance" in said and "1 from its checkpoint: expert_overlap" in said
    assert "1 from its history: max_vio_swing" in said and "left as it is" not in said
    now, then = (json.loads((path / "summary.json").read_text()) for path in (run, trained))
    made = now.pop("remeasured")
    assert {name: made[name]["from"] for name in NEWER} == {
        "load_gini": "counts",
        "usage_variance": "counts",
        "max_vio_swing": "history",
        "expert_overlap": "checkpoint",
    }
    assert {k: v for k, v in now.items() if k != "seal"} == {k: v for k, v in then.items() if k != "seal"}
    rows, before = (History.load(path / "history.parquet").frame() for path in (run, trained))
    # What needs the model cannot be had of earlier steps; counts of them were kept.
    lost = (before["metric"] == "expert_overlap") & (before["step"] < before["step"].max())
    assert rows.equals(before[~lost].reset_index(drop=True))
    assert StoredRun(run).refusal is None and run.name in collect(run.parent).by_run
    assert main([f"run={run.name}"]) == 0
    assert "from its" not in capsys.readouterr().out


def test_without_a_checkpoint_it_says_what_needs_the_model(run: Path, capsys) -> None:
    forget(run, *NEWER)
    shutil.rmtree(run / "checkpoints")
    assert main(["run=all"]) == 0
    said = capsys.readouterr().out
    assert "2 from its counts: load_gini, usage_variance" in said
    assert "not " in said and "expert_overlap" in said and "needs the model: " in said and "no whole checkpoint" in said
    assert "expert_overlap" not in json.loads((run / "summary.json").read_text())["metrics"]


def test_counts_of_a_larger_final_set_are_not_those_of_the_snapshots(run: Path) -> None:
    forget(run, "load_gini")
    stored = StoredRun(run)
    stored.config["data"]["final_evaluation_tokens"] = 4096
    assert "load_gini" in remeasure(stored, use_checkpoint=False).lacking


def test_figures_that_differ_are_reported_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    make_study(tmp_path, "baselines", lambda job: {}, ("seed=0", "baseline=hash"), curves=True)
    (run,) = (tmp_path / "runs").iterdir()
    forget(run, "load_gini")
    before = json.loads((run / "summary.json").read_text())["metrics"]
    assert main([f"run={run.name}", "checkpoint=false"]) == 0
    counts_LE = StoredRun(run).snapshots[250].counts_LE
    after = json.loads((run / "summary.json").read_text())["metrics"]
    assert after == before | {"load_gini": pytest.approx(float(np.mean(gini(counts_LE))))}
    cv = float(np.mean(coefficient_of_variation(counts_LE)))
    said = f"load_cv is {before['load_cv']:.6g} in its summary and {cv:.6g} now; left as it is"
    assert said in capsys.readouterr().out


def test_an_edited_run_is_refused_and_stays(run: Path, capsys) -> None:
    forget(run, "load_gini")
    path = run / "summary.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    edited = path.read_bytes()
    assert main(["run=all"]) == 1
    assert "its summary.json was edited" in capsys.readouterr().err and path.read_bytes() == edited


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["run=nothing"], "no run 'nothing'"),
        (["runs=all"], "did you mean 'run'"),
        (["run=all", "device=tpu"], "valid: cpu, cuda"),
        (["checkpoint=true"], "run: is missing"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, monkeypatch, capsys, typed: list[str], said: str) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert main(typed) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1


class Killed(BaseException):
    """What no writer catches."""


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_write_leaves_a_run_that_counts(run: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    forget(run, "load_gini", "usage_variance")
    earlier = {name: (run / name).read_bytes() for name in ("summary.json", "history.parquet")}
    remeasure(StoredRun(run), use_checkpoint=False)
    whole = {name: (run / name).read_bytes() for name in earlier}
    replace, writes = os.replace, 0
    for killed_at in range(10):
        for name, content in earlier.items():
            (run / name).write_bytes(content)
        writes = 0

        def kill(source: Path, target: Path, killed_at: int = killed_at) -> None:
            nonlocal writes
            if Path(target).name not in earlier:
                return replace(source, target)
            writes += 1
            if after or writes <= killed_at:
                replace(source, target)
            if writes == killed_at + 1:
                raise Killed

        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(os, "replace", kill)
            remeasure(StoredRun(run), use_checkpoint=False)
            break
        assert StoredRun(run).refusal is None and run.name in collect(run.parent).by_run
        # Whatever else is written into the summary before it is asked for again.
        change_summary(run / "summary.json", {"studies": []})
        assert StoredRun(run).refusal is None
        change_summary(run / "summary.json", {"studies": json.loads(whole["summary.json"])["studies"]})
        remeasure(StoredRun(run), use_checkpoint=False)
        assert {name: (run / name).read_bytes() for name in whole} == whole
    assert killed_at >= 2
    # Nothing else may be in the history's place.
    (run / "history.parquet").write_bytes(earlier["history.parquet"])
    assert "history.parquet" in StoredRun(run).refusal


def test_each_lacking_metric_has_one_reason(run: Path, capsys) -> None:
    forget(run, "usage_variance", "load_gini", "expert_overlap")
    content = json.loads((run / "summary.json").read_text())
    content.pop("seal")
    for path in sorted((run / "routing").iterdir())[:-1]:
        path.unlink()
    write_json(run / "summary.json", sealed(run, content))
    said = [remeasure(StoredRun(run), use_checkpoint=use).lacking["usage_variance"] for use in (False, True)]
    assert said == ["needs routing snapshots of two fractions of training, which the run did not keep"] * 2
    shutil.rmtree(run / "checkpoints")
    forget(run, "expert_overlap")
    lacking = remeasure(StoredRun(run)).lacking
    assert "needs the model: " in lacking["expert_overlap"] and "load_gini" not in lacking
    # Figures of the model alone ask for it: not those that no model gives.
    assert lacking["usage_variance"] == said[0]


@pytest.mark.parametrize("code", ["today's", "earlier"])
def test_what_the_run_found_undefined_needs_no_model(run: Path, code: str, capsys) -> None:
    content = json.loads((run / "summary.json").read_text())
    content.pop("seal")
    content["metrics"].pop("expert_overlap")
    content["metrics_by_layer"]["expert_overlap"] = [None] * len(content["metrics_by_layer"]["load_cv"])
    if code == "earlier":
        content["fingerprints"]["code"] = "earlier"
    write_json(run / "summary.json", sealed(run, content))
    checkpoints = run / "checkpoints"
    checkpoints.rename(run / "aside")
    for use in ("true", "false"):
        assert main([f"run={run.name}", f"checkpoint={use}"]) == 0
        said = capsys.readouterr().out
        assert ("expert_overlap: not defined for this run" in said) == (code == "earlier")
        assert "needs the model" not in said
    (run / "aside").rename(checkpoints)
    # Today's measure is tried where an earlier one gave nothing.
    assert ("expert_overlap" in remeasure(StoredRun(run)).added) == (code == "earlier")


def test_a_dense_run_has_nothing_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    make_study(tmp_path, "baselines", lambda job: {}, ("seed=0", "baseline=hash"))
    (run,) = (tmp_path / "runs").iterdir()
    assert not remeasure(StoredRun(run)).added
    (run / "config.yaml").write_text("")
    with pytest.raises(SpectraError, match="config.yaml: not a run's configuration"):
        remeasure(StoredRun(run))
