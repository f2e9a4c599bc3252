"""Damaged, edited and impossible run folders: each is named once, no figure of it counts, and the rest is tabulated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import read_table
from made_studies import make_study
from markupsafe import Markup

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.reporting import make_report
from spectra_exp.reporting.collect import collect
from spectra_exp.reporting.make_figures import main as figures
from spectra_exp.reporting.make_report import main as report
from spectra_exp.reporting.make_tables import main as tables
from spectra_exp.reporting.share import find_run, share
from spectra_exp.runs.history import History
from spectra_exp.runs.routing_files import load_snapshot, save_snapshot
from spectra_exp.runs.stored import StoredRun
from spectra_exp.runs.summary import sealed

Damage = Callable[[Path], Any]


def change(key: str, value: Any) -> Damage:
    """Set a dotted key of the summary, whatever its seal says."""

    def damage(run: Path) -> None:
        content = json.loads((run / "summary.json").read_text())
        *groups, last = key.split(".")
        holder = content
        for group in groups:
            holder = holder[group]
        holder[last] = value
        (run / "summary.json").write_text(json.dumps(content))

    return damage


def write(name: str, content: str | bytes) -> Damage:
    return lambda run: (run / name).write_bytes(content.encode() if isinstance(content, str) else content)


def configure(key: str, value: Any) -> Damage:
    def damage(run: Path) -> None:
        config = yaml.safe_load((run / "config.yaml").read_text())
        *groups, last = key.split(".")
        holder = config
        for group in groups:
            holder = holder[group]
        holder[last] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    return damage


def other_kind(name: str) -> Damage:
    """A folder where a file belongs, or the other way round."""

    def damage(run: Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
            path.write_text("mine")
        else:
            path.unlink(missing_ok=True)
            path.mkdir()

    return damage


def empty_folder(name: str) -> Damage:
    def damage(run: Path) -> None:
        shutil.rmtree(run / name)
        (run / name).mkdir()

    return damage


def one_layer(run: Path) -> None:
    path = sorted((run / "routing").glob("*.npz"))[2]
    with np.load(path) as archive:
        arrays = {name: v[:1] if v.ndim > 1 else v for name, v in archive.items()}
    np.savez(path, **arrays)


def swapped_history(run: Path) -> None:
    found = History.load(run / "history.parquet")
    found.add(250, 1.0, "validation", {"val_loss": 1.0})
    found.save(run / "history.parquet")


def short_history(run: Path) -> None:
    found = History.load(run / "history.parquet")
    found.truncate_after(125)
    found.save(run / "history.parquet")


def added_snapshot(run: Path) -> None:
    path = sorted((run / "routing").glob("*.npz"))[0]
    save_snapshot(run / "routing", load_snapshot(path).__class__(**vars(load_snapshot(path)) | {"step": 7}))


# Damage, and what must be said of it. Of a sealed run any edit is an edit.
EDITED: dict[str, tuple[Damage, str]] = {
    "loss": (change("metrics.val_loss", 3.0), "its summary.json was edited"),
    "config": (configure("trainer.log_every", 11), "config.yaml"),
    "config gone": (lambda run: (run / "config.yaml").unlink(), "config.yaml"),
    "history gone": (lambda run: (run / "history.parquet").unlink(), "history.parquet"),
    "history cut": (write("history.parquet", b"PAR1"), "history.parquet"),
    "documents cut": (write("documents.parquet", b"PAR1"), "documents.parquet"),
    "snapshot gone": (lambda run: sorted((run / "routing").glob("*.npz"))[0].unlink(), "routing/step-00000000.npz"),
    "snapshot added": (added_snapshot, "routing/step-00000007.npz"),
    "routing emptied": (empty_folder("routing"), "routing/"),
    "one layer": (one_layer, "routing/step-"),
}
# The same without a seal: runs of earlier code, or made by hand.
IMPOSSIBLE: dict[str, tuple[Damage, str]] = {
    "brackets": (write("summary.json", "[" * 200_000), "not readable as JSON"),
    "digits": (write("summary.json", '{"schema": ' + "9" * 9999 + "}"), "not readable as JSON"),
    "latin": (write("summary.json", b'{"schema": "\xe9"}'), "not readable as JSON"),
    "list": (write("summary.json", "[]"), "not a run's summary"),
    "folder": (other_kind("summary.json"), "not readable as JSON"),
    "true": (change("metrics.val_loss", True), "'metrics.val_loss' is not a number"),
    "error": (change("error", -5), "'error' is not what a summary holds there"),
    "seed": (change("seed", -1), "seed -1 is not between 0"),
    "other seed": (change("seed", 77), "its configuration has seed"),
    "few steps": (change("steps", 3), "completed, but 3 steps of 250"),
    "other steps": (change("max_steps", 150), "completed, but 250 steps of 150"),
    "no steps": (change("steps", None), "completed after None steps"),
    "parameters": (change("parameters.active", -1), "active parameters are -1"),
    "more active": (change("parameters.active", 9_000_000), "9000000 active parameters of 2500000"),
    "flops": (change("flops_per_token", -2.0), "-2.0 FLOPs per token"),
    "vast flops": (change("flops_per_token", 1e300), "1e+300 FLOPs per token"),
    "layers": (change("metrics_by_layer.load_cv", [0.9, 0.9]), "is not the mean over its layers"),
    "contradiction": (swapped_history, "its history contradicts its summary: metrics.val_loss 1, not"),
    "half": (short_history, "its history ends at step 125 and its summary at step 250"),
}
# The run stays; the file is named and left out.
PARTS: dict[str, tuple[Damage, str]] = {
    "cut": (write("history.parquet", b"PAR1"), "history.parquet: not readable as a run's history"),
    "one layer": (one_layer, ": of 1 layers of 8 experts, where the others are of 2 layers of 8 experts"),
    "npz": (write("routing/step-00000030.npz", b"PK"), "step-00000030.npz: not a whole routing snapshot"),
    "yaml": (write("config.yaml", "a: [1"), "config.yaml: not a run's configuration"),
    "empty": (write("config.yaml", ""), "config.yaml: not a run's configuration (it holds no settings)"),
    "trainer": (configure("trainer", 5), "config.yaml: not a run's configuration (trainer is 5, not a group"),
    "no model": (configure("model", None), "config.yaml: not a run's configuration (model is None, not a group"),
    "no evaluations": (configure("trainer.eval_every", None), "(trainer.eval_every is None, not a whole number)"),
    "bomb": (write("config.yaml", "[" * 50_000), "config.yaml: not a run's configuration"),
    "analysis": (write("analysis", "mine"), "analysis: not a folder"),
    "log": (other_kind("train.log"), "train.log: not a file"),
    "routing": (other_kind("routing"), "routing: not a folder"),
    "checkpoints": (write("checkpoints", "mine"), "checkpoints: not a folder"),
    "hydra": (write(".hydra", "mine"), ".hydra: not a folder"),
}
# The run stays; the figure is named and left empty.
OUT_OF_RANGE: dict[str, tuple[Damage, str]] = {
    "negative loss": (change("metrics.val_loss", -5), "val_loss -5 (from 0 to 700)"),
    "huge loss": (change("metrics.val_loss", 1e308), "val_loss 1e+308"),
    "load": (change("metrics.load_cv", 500), "load_cv 500 (from 0 to √(E − 1))"),
    "of 8 experts": (change("metrics.max_vio", 7.5), "max_vio 7.5 (from 0 to E − 1)"),
    "accuracy": (change("metrics.val_accuracy", 9), "val_accuracy 9 (from 0 to 1)"),
    "floor": (change("floors.load_cv", -0.1), "load_cv's floor -0.1"),
    "other rule": (change("metrics_training_rule", {"load_cv": 4.0}), "load_cv_training_rule 4"),
    "timing": (change("timings.step_time_ms", -1.0), "step_time_ms -1"),
}
ALL = {
    f"{kind} {name}": case
    for kind, cases in (("edited", EDITED), ("impossible", IMPOSSIBLE), ("part", PARTS), ("range", OUT_OF_RANGE))
    for name, case in cases.items()
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run for each kind of damage and two that stay whole; those to be edited, and one whole one, are sealed."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_study(folder, "baselines", lambda job: {}, (f"seed=0..{len(ALL) + 1}", "baseline=hash"), curves=True)
        yield folder


@pytest.fixture
def outputs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to damage."""
    shutil.copytree(world, tmp_path / "outputs")
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def by_seed(outputs: Path) -> list[Path]:
    runs = {json.loads((run / "summary.json").read_text())["seed"]: run for run in (outputs / "runs").iterdir()}
    return [runs[seed] for seed in sorted(runs)]


def seal(run: Path) -> None:
    write_json(run / "summary.json", sealed(run, json.loads((run / "summary.json").read_text())))


def damage_all(outputs: Path) -> dict[str, Path]:
    """Do every damage to a run of its own; the damaged runs by case. The last two runs stay whole."""
    runs = by_seed(outputs)
    damaged = dict(zip(ALL, runs, strict=False))
    for name, run in damaged.items():
        if name.startswith("edited "):
            seal(run)
        if name.startswith("range "):
            # With it the run would contradict itself.
            (run / "history.parquet").unlink()
        ALL[name][0](run)
    seal(runs[-1])
    return damaged


@pytest.mark.parametrize("command", [tables, figures, report])
def test_each_damaged_folder_is_named_once_and_the_rest_is_used(outputs: Path, command, capsys, monkeypatch) -> None:
    # The curves of sixty pages are read, and not drawn.
    monkeypatch.setattr(make_report, "cached", lambda folder: lambda panel, label: Markup("<svg></svg>"))
    damaged = damage_all(outputs)
    (outputs / "runs" / "notes.txt").write_text("mine")
    arguments = ["only=figure05_routing_entropy"] if command is figures else []
    assert command([f"outputs={outputs}", *arguments]) == 0
    lines = capsys.readouterr().err.splitlines()
    for name, run in damaged.items():
        own = [line for line in lines if run.name in line]
        assert len(own) == 1 and ALL[name][1] in own[0], (name, own)
    assert sum("notes.txt" in line for line in lines) == 1
    assert not any(run.name in line for run in by_seed_left(outputs, damaged) for line in lines)


def by_seed_left(outputs: Path, damaged: dict[str, Path]) -> list[Path]:
    left = [run for run in (outputs / "runs").iterdir() if run.is_dir() and run not in damaged.values()]
    assert len(left) == 2
    return left


def test_no_figure_of_a_damaged_run_and_none_out_of_range_counts(outputs: Path) -> None:
    damaged = damage_all(outputs)
    collected = collect(outputs / "runs")
    whole = {run.name for run in by_seed_left(outputs, damaged)}
    kept = {run.name for name, run in damaged.items() if name.startswith(("part ", "range "))}
    assert set(collected.by_run) == whole | kept
    assert tables([f"outputs={outputs}"]) == 0
    (row,) = read_table(outputs / "tables", "routing_metrics").to_dict("records")
    losses = len(collected.by_run) - 2
    assert (row["n"], row["val_loss_n"], row["load_cv_n"], row["max_vio_n"]) == (
        len(collected.by_run),
        losses,
        len(collected.by_run) - 1,
        len(collected.by_run) - 1,
    )
    assert 4 <= float(row["val_loss_mean"]) < 10


def test_an_edit_is_found_only_where_there_is_a_seal(outputs: Path) -> None:
    """The seal decides: the same edit of a run of earlier code cannot be told."""
    plain, run = by_seed(outputs)[:2]
    seal(run)
    for folder in (plain, run):
        change("metrics.val_accuracy", 0.5)(folder)
    assert StoredRun(run).refusal == "its summary.json was edited"
    assert StoredRun(plain).refusal == "its history contradicts its summary: metrics.val_accuracy 0.2, not 0.5"
    (plain / "history.parquet").unlink()
    assert StoredRun(plain).refusal is None


def test_a_gap_of_a_run_that_does_not_count_names_why_and_makes_it_again(outputs: Path) -> None:
    run = by_seed(outputs)[0]
    seal(run)
    change("metrics.val_loss", 3.0)(run)
    assert tables([f"outputs={outputs}"]) == 0
    gaps = pd.read_csv(outputs / "tables" / "missing.csv", keep_default_na=False)
    (gap,) = gaps[gaps["table"].str.startswith("baselines, ") & (gaps["what"] == "seeds 0")].to_dict("records")
    assert gap["reason"] == "its summary.json was edited" and gap["command"].endswith("seed=0 force=true")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (configure("trainer", 5), "trainer is 5, not a group of settings"),
        (write("config.yaml", ""), "it holds no settings"),
        (write("config.yaml", "model: {}"), "it has no seed"),
        (lambda run: (run / "config.yaml").unlink(), "there is none"),
        (change("seed", -1), "seed -1"),
    ],
)
def test_what_cannot_be_shared_is_said(outputs: Path, damage: Damage, said: str) -> None:
    run = by_seed(outputs)[0]
    damage(run)
    with pytest.raises(SpectraError, match=said):
        share(find_run(run.name, outputs), outputs / "shared", outputs)
    assert not (outputs / "shared").exists()
