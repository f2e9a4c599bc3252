"""The check of a GPU machine, rehearsed on the CPU: its stages, their files, and the faults that they find."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from spectra_exp.bench.gpu_check import command
from spectra_exp.bench.gpu_check import run_stages as work
from spectra_exp.bench.gpu_check.command import STAGES, main
from spectra_exp.bench.gpu_check.page import page, table
from spectra_exp.bench.gpu_check.stage import Setting, carry_out, outcome
from spectra_exp.bench.gpu_check.training import Training, flip_rate, flips_beyond_ties, largest_gap
from spectra_exp.config.tree import project_root

# Kills, resumed runs and several at once have tests of their own, and seven processes more would take too long.
REHEARSED = [name for name in STAGES if name not in ("resume", "sharing")]


@pytest.mark.full
@pytest.mark.slow
def test_the_rehearsal_of_several_runs_at_once_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert main(["device=cpu", "routers=switch", "only=sharing"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == ["sharing: passed"]


@pytest.mark.slow
def test_the_rehearsal_passes_and_leaves_a_file_a_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert main(["device=cpu", "routers=switch", f"only={','.join(REHEARSED)}"]) == 0
    # Nothing of these can be looked at without a GPU.
    ends = {name: "left out" if name in ("tests", "kernels") else "passed" for name in REHEARSED}
    assert capsys.readouterr().out.splitlines()[:-1] == [f"{name}: {end}" for name, end in ends.items()]
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "gpu-check" / "cpu").glob("*.json")}
    assert found.keys() == set(REHEARSED)
    page = (tmp_path / "gpu-check" / "cpu.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## {name}: {end}" for name, end in ends.items()
    ]
    assert [finding["counts"].keys() for finding in found["tests"]["findings"]] == [{"skipped"}]
    assert any(finding["passed"] is None and finding["value"] is None for finding in found["others"]["findings"])
    assert json.loads((tmp_path / "gpu-check" / "cpu.json").read_text())["stages"] == [found[n] for n in REHEARSED]
    assert all(stage["done"] and stage["findings"] and stage["card"] == "cpu" for stage in found.values())
    (memory,) = found["memory"]["findings"]
    assert memory["bytes_early"] > 0
    (agreement,) = found["agreement"]["findings"]
    # On one device float32 is itself, and bf16 is not.
    assert agreement["loss_gap"] == 0 < agreement["bf16_loss_gap"]


def test_tensors_without_memory_of_their_own_are_not_counted(tmp_path):
    sparse, nowhere = torch.eye(3).to_sparse(), torch.empty(3, device="meta")
    before = Setting("cpu", tmp_path, ()).memory()
    more = torch.zeros(1000)
    assert Setting("cpu", tmp_path, ()).memory() - before == 4000
    del sparse, nowhere, more


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_machine_without_gpu_is_told_in_one_line(capsys):
    assert main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: gpu-check: torch sees no GPU here")


@pytest.mark.parametrize("word, nearest", [("only=memroy", "memory"), ("routers=swich", "switch")])
def test_a_typo_names_the_nearest(word, nearest, capsys):
    assert main([word, "device=cpu"]) == 2
    assert f"did you mean '{nearest}'" in capsys.readouterr().err


def test_findings_are_on_disk_at_once_and_a_stage_that_breaks_off_has_failed(tmp_path):
    setting = Setting("cpu", tmp_path, ())
    path = setting.folder / "broken.json"

    def broken(setting):
        yield {"name": "first", "passed": True}
        assert [f["name"] for f in json.loads(path.read_text())["findings"]] == ["first"]
        raise ValueError("no such\nthing")

    assert carry_out("broken", broken, setting) is False
    found = json.loads(path.read_text())
    assert found["done"] and found["findings"][1]["error"] == "ValueError: no such thing"


def test_what_could_not_be_looked_at_has_not_passed():
    passed, left_out, missed = ({"name": "a", "passed": word, "met": False} for word in (True, None, False))
    assert [outcome(found) for found in ([left_out], [left_out, passed], [passed, missed], [])] == [
        None,
        True,
        False,
        None,
    ]
    assert [row.split(" | ")[-1] for row in table([passed, left_out, missed])[2:]] == [
        "target missed |",
        "left out |",
        "FAILED |",
    ]


@pytest.mark.parametrize("content", ["{broken", "[]", '{"stage": "memory"}'])
def test_a_stage_that_cannot_be_read_is_told_before_any_begins(content, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    path = tmp_path / "gpu-check" / "cpu" / "memory.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert main(["device=cpu", "only=attention", "routers=switch"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: is not what a stage writes") and "only=memory" in line


CARDS = sorted((project_root() / "docs" / "results" / "gpu").glob("*.json"))


@pytest.mark.parametrize("file", CARDS, ids=[file.stem for file in CARDS])
def test_the_published_page_of_a_card_is_made_from_its_file(file):
    content = json.loads(file.read_text(encoding="utf-8"))
    made = page(content["card"], content["stages"], STAGES)
    assert file.with_suffix(".md").read_text(encoding="utf-8") == made


def test_a_run_ends_with_the_check_that_is_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt), work.running(Setting("cpu", tmp_path, ()), "run", "debug=smoke") as process:
        raise KeyboardInterrupt
    assert process.returncode == -9


def test_a_check_that_is_stopped_leaves_its_page(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))

    def stopped(setting):
        """Gets so far."""
        yield {"name": "first", "passed": True}
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "STAGES", {"stopped": stopped})
    assert main(["device=cpu"]) == 130
    page = (tmp_path / "gpu-check" / "cpu.md").read_text()
    assert "## stopped: broken off" in page and "| first | passed |" in page


def test_what_an_earlier_check_ran_is_not_taken_for_this_one(tmp_path, monkeypatch):
    setting = Setting("cpu", tmp_path, ())

    @contextmanager
    def made(setting, name, *lines):
        """Takes the place of a run."""
        (setting.folder / name / "runs" / "new").mkdir(parents=True)
        yield SimpleNamespace(wait=lambda _: 0)

    def read(_, name):
        return SimpleNamespace(read_summary=lambda: {"metrics": {"val_loss": name}, "timings": {}})

    (setting.folder / "exp10" / "runs" / "before").mkdir(parents=True)
    monkeypatch.setattr(work, "running", made)
    monkeypatch.setattr(work, "RunFolder", read)
    (found,) = work.exp10(setting)
    assert found["val_loss"] == "new"


def one_layer(chosen: list[list[int]], probs: list[list[float]] | None, *losses: float) -> Training:
    return Training(
        list(losses), [torch.tensor(chosen, dtype=torch.bool)], [None if probs is None else torch.tensor(probs)]
    )


def test_decisions_that_differ_are_counted_unless_they_tie():
    probs = [[0.5, 0.3, 0.2], [0.40, 0.3001, 0.2999]]
    a, b = one_layer([[1, 1, 0], [1, 1, 0]], probs, 2.0, 1.0), one_layer([[1, 0, 1], [1, 0, 1]], probs, 2.0, 1.1)
    assert flips_beyond_ties(a, b) == 1 and flip_rate(a, b) == 1.0
    assert flips_beyond_ties(a, a) == 0 and largest_gap(a, b) == pytest.approx(0.1)
    # Without probabilities nothing ties.
    assert flips_beyond_ties(one_layer([[1, 0]], None), one_layer([[0, 1]], None)) == 1
