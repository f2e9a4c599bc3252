"""Benchmarks found by name, figures judged by their targets, and one file for all of them."""

from __future__ import annotations

import json
import re

import pytest
import torch

from spectra_exp.bench import command
from spectra_exp.bench.registry import BENCHMARKS, Benchmark, Figure, chosen, write_figures
from spectra_exp.config.tree import project_root
from spectra_exp.foundations.errors import ConfigError


@pytest.mark.parametrize(
    "value, target, better, met",
    [
        (1.0, 2.0, "lower", True),
        (2.0, 2.0, "lower", True),
        (3.0, 2.0, "lower", False),
        (1.0, 2.0, "higher", False),
        (2.0, 2.0, "higher", True),
        (1.0, None, "lower", None),
    ],
)
def test_a_target_is_met_from_its_own_side(value, target, better, met):
    assert Figure("x", value, "s", target, better).met is met


def test_every_benchmark_is_found_and_says_what_it_measures():
    every = BENCHMARKS.all()
    assert "study" in every
    assert all((one.function.__doc__ or "").strip() for one in every.values())
    assert [one.name for one in chosen(["study"])] == ["study"]
    on_a_gpu = {"layer_gpu", "layer_peers_gpu", "step_gpu", "updates_gpu", "attention_gpu", "tiny_step_gpu"}
    assert set(every) - {one.name for one in chosen([])} == on_a_gpu
    # All of them are those of `make bench-gpu`.
    makefile = (project_root() / "Makefile").read_text()
    assert set(re.search(r"bench only=(layer_gpu\S+)", makefile)[1].split(",")) == on_a_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_benchmark_that_needs_a_gpu_says_so_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert command.main(["updates_gpu"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: benchmark updates_gpu: torch sees no GPU"


def test_what_is_measured_stays_if_the_rest_fails(tmp_path, monkeypatch):
    def cut(outputs):
        """Cut off."""
        yield Figure("first_s", 2.0, "s")
        raise KeyboardInterrupt

    BENCHMARKS.all()
    monkeypatch.setattr(BENCHMARKS, "_entries", {"cut": Benchmark("cut", cut)})
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert command.main(["cut"]) != 0
    assert json.loads((tmp_path / "bench" / "summary.json").read_text())["first_s"]["value"] == 2.0


def test_a_typo_names_the_nearest(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'study'"):
        chosen(["stduy"])
    assert command.main(["stduy"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: benchmark") and "did you mean 'study'" in line


def test_figures_of_other_benchmarks_stay_and_the_same_one_is_replaced(tmp_path):
    write_figures(tmp_path, [Figure("b", 1.0, "s"), Figure("a", 5.0, "s", 4.0)])
    path = write_figures(tmp_path, [Figure("a", 3.0, "s", 4.0)])
    found = json.loads(path.read_text())
    assert path == tmp_path / "bench" / "summary.json" and list(found) == ["a", "b"]
    assert found["a"] == {"value": 3.0, "unit": "s", "target": 4.0, "better": "lower", "met": True}
    assert found["b"]["met"] is None


def test_the_command_runs_those_named_and_prints_what_is_met(tmp_path, monkeypatch, capsys):
    ran = []

    def quick(outputs):
        """Quick."""
        ran.append(outputs)
        return [Figure("quick_s", 2.0, "s", 1.0)]

    def other(outputs):
        """Not asked for."""
        raise AssertionError

    # What registers itself while the stand-ins are there would be lost with them.
    BENCHMARKS.all()
    stood_in = {name: Benchmark(name, function) for name, function in (("quick", quick), ("other", other))}
    monkeypatch.setattr(BENCHMARKS, "_entries", stood_in)
    monkeypatch.setenv("SPECTRA_OUTPUTS", str(tmp_path))
    assert command.main(["quick"]) == 0
    out = capsys.readouterr().out
    assert ran == [tmp_path] and "quick_s" in out and "<= 1" in out and " no" in out
    assert json.loads((tmp_path / "bench" / "summary.json").read_text())["quick_s"]["met"] is False
