"""The page of the temperature study at its reference scale."""

from __future__ import annotations

import os
import subprocess
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from spectra_exp.foundations.shell import exit_status

ROOT = Path(__file__).resolve().parents[2]
spec = util.spec_from_file_location("temperature_page", ROOT / "tools" / "temperature_page.py")
temperature_page = util.module_from_spec(spec)
spec.loader.exec_module(temperature_page)

SUMMARY = {
    "temperature": "t1_5",
    "steps": 500,
    "timings": {"wall_s": 61.4, "tokens_per_second": 812345.6, "peak_memory_mb": 20000.0},
    "metrics": {"train_loss": 0.5, "val_loss": 4.5, "routing_entropy": 1.25, "load_gini": 0.125},
}
HISTORY = pd.DataFrame(
    [
        (0, "validation", "all", "val_loss", 9.0),
        (100, "validation", "all", "val_loss", 3.25),
        (500, "validation", "all", "val_loss", 4.5),
        (100, "train", "all", "train_loss", 1.0),
        (100, "validation", "all", "load_gini", 0.01),
    ],
    columns=["step", "split", "layer", "metric", "value"],
)


def test_a_row_has_the_best_loss_and_the_last():
    cells = temperature_page.row(SimpleNamespace(summary=SUMMARY, history=HISTORY))
    assert dict(zip(temperature_page.COLUMNS, cells, strict=True)) == {
        "temperature": "t1_5",
        "steps": "500",
        "time (s)": "61",
        "tokens/s": "812,346",
        "memory (MiB)": "20,000",
        "train loss": "0.500",
        "best val loss (step)": "3.250 (100)",
        "last val loss": "4.500",
        "routing entropy": "1.250",
        "Gini of the load": "0.125",
    }


def stored(outputs, temperature, seed, loss=4.5):
    metrics = SUMMARY["metrics"] | {"val_loss": loss}
    summary = SUMMARY | {"temperature": temperature, "seed": seed, "status": "completed", "metrics": metrics}
    entropy = [(step, step / 500, "validation", "all", "routing_entropy", 2 - step / 1000) for step in (0, 50, 500)]
    history = pd.DataFrame(entropy, columns=["step", "fraction", "split", "layer", "metric", "value"])
    return SimpleNamespace(
        summary=summary,
        history=pd.concat([HISTORY, history]),
        config={"trainer": {"batch_size": 24, "accumulation": 4}, "data": {"sequence_length": 512}},
        folder=SimpleNamespace(environment="environment.json"),
        text=lambda _: '{"devices": {"kind": "cuda", "names": ["NVIDIA H100"]}}',
    )


def of_these(runs, monkeypatch):
    """Have the page made of these runs."""
    sources = SimpleNamespace(stored=SimpleNamespace(values=lambda: runs))
    monkeypatch.setattr(temperature_page, "read_sources", lambda *_: sources)


def test_several_seeds_have_the_verdicts_of_the_tables(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "hypotheses.md").write_text("# Hypotheses\n")
    runs = [stored(tmp_path, "t1_5", 0), stored(tmp_path, "t1_5", 1)]
    of_these(runs, monkeypatch)
    page = temperature_page.page(tmp_path)
    assert "2 finished runs of `model=exp10`, steps of 96 x 512 tokens on NVIDIA H100." in page
    assert page.endswith("# Hypotheses\n")


def test_one_seed_is_read_without_a_test(tmp_path, monkeypatch):
    names = ["cosine", "t0_5", "t0_7", "t1_0", "t1_5", "t2_0", "t3_0", "t5_0", "t10_0", "linear", "exponential", "step"]
    runs = [stored(tmp_path, name, 0, 4 + n / 10) for n, name in enumerate(names)]
    of_these(runs, monkeypatch)
    told = temperature_page.page(tmp_path).split("## What one seed says\n\n")[1].splitlines()
    assert [line[:4] for line in told] == ["- T1", "- T2", "- T3", "- T4"]
    assert "lowest at 0.5, outside 1.5 to 2 (0.5: 4.100" in told[0] and told[0].endswith("; best loss at 0.5.")
    assert "cosine's 4.000 is below 8 of 8 constants" in told[1]
    assert "0.5: 0.450, 0.7: 0.450" in told[3]
    runs.pop()
    page = temperature_page.page(tmp_path)
    assert "Not finished: step, best_long." in page and "lowest at 0.5" in page
    assert next(line for line in page.splitlines() if line.startswith("- T2")).endswith(": waits for runs.")


def outside_make():
    """The environment as it is where no make has set it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def launched(tmp_path, status, *words):
    """The commands of the make target, each of which ends with this status."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit {status}\n')
    python.chmod(0o755)
    text = tmp_path / "text"
    text.mkdir()
    for name in ("train", "validation"):
        (text / f"{name}.jsonl").touch()
    command = ["make", f"PY={python}", f"SPECTRA_OUTPUTS={tmp_path}", "temperature-reference", f"TEXT={text}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=outside_make())
    return done.returncode, (tmp_path / "calls").read_text().splitlines()


def test_a_text_that_is_not_there_is_told_before_all_else(tmp_path):
    command = ["make", "PY=false", "temperature-reference", f"TEXT={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=outside_make())
    assert done.returncode == 2 and done.stderr.startswith(f"error: TEXT: no train.jsonl in '{tmp_path}'".encode())


@pytest.mark.parametrize(
    "words, status, told",
    [([], 2, "0 words were given"), (["/nowhere"], 2, "there is no '/nowhere'"), ([""], 1, "no run")],
)
def test_what_has_no_finished_run_is_told_in_one_line(words, status, told, tmp_path, capsys):
    found = exit_status(lambda: temperature_page.main([word or str(tmp_path) for word in words]), "stopped")
    out, err = capsys.readouterr()
    assert (found, out, err.count("\n")) == (status, "", 1) and told in err


def test_the_target_asks_for_a_gpu_and_wrong_words_end_it(tmp_path):
    status, (run,) = launched(tmp_path, 2)
    assert status == 2 and {"trainer.device=cuda", "trainer.eval_every=100"} <= set(run.split())
    assert f"outputs={tmp_path}/temperature-reference" in run.split()


def test_a_rehearsal_takes_sizes_and_has_runs_and_page_of_its_own(tmp_path):
    (tmp_path / "temperature-reference-cpu").mkdir()
    sizes = "trainer.eval_every=2", "model.num_layers=1"
    status, (run, *_) = launched(tmp_path, 0, "JOBS=2", "trainer.device=cpu", *sizes)
    assert status == 0 and f"outputs={tmp_path}/temperature-reference-cpu" in run.split()
    assert [word for word in run.split() if "eval_every" in word] == ["trainer.eval_every=2"]
    assert "trainer.device=cuda" not in run and set(sizes) < set(run.split())
    assert (tmp_path / "temperature-reference-cpu" / "temperature.md").exists()
    assert "launch.jobs=2" in run and "launch.per_gpu" not in run
