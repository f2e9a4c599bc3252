"""From Python what the command line does: composed, run, loaded, compared; in a running event loop, twice a process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from made_runs import summary, write

import spectra_exp
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.reporting.material import gather

SMALL = ["debug=smoke", "model.num_layers=2", "model.hidden_size=32", "trainer.max_steps=2", "logger.progress=false"]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two methods of three seeds, and one that saw other batches."""
    for seed in range(3):
        for cell, loss in (("spectra", 3.0 + 0.1 * seed), ("switch", 3.3 + 0.08 * seed), ("odd", 4.0)):
            prints = {"batches": "other"} if cell == "odd" else {}
            write(tmp_path, summary(cell, seed, {"val_loss": loss, "load_cv": 0.2}, fingerprints=prints))
    return tmp_path


def test_the_public_names_are_there_and_cost_nothing_until_used():
    assert set(spectra_exp.__all__) <= set(dir(spectra_exp))
    assert all(getattr(spectra_exp, name).__doc__ for name in spectra_exp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spectra_exp.nothing


def test_a_configuration_is_composed_and_a_wrong_one_is_one_line():
    assert spectra_exp.compose("router=switch", "seed=4").seed == 4
    with pytest.raises(ConfigError, match="did you mean 'switch'"):
        spectra_exp.compose("router=swich")


@pytest.mark.slow
def test_a_run_in_a_running_event_loop_and_again_in_the_same_process(tmp_path):
    async def cell(*words: str) -> spectra_exp.Run:
        return spectra_exp.run(*SMALL, f"outputs={tmp_path}", *words)

    made = asyncio.run(cell("router=switch"))
    assert made.summary["status"] == "completed" and made.metrics["val_loss"] > 0
    assert {"step", "split", "layer", "metric", "value"} <= set(made.history.columns)
    assert all(counts_LE.shape == (2, 8) and counts_LE.dtype == np.int64 for counts_LE in made.counts.values())
    assert made.counts and made.model().num_parameters() == made.summary["parameters"]["total"]
    assert asyncio.run(cell("router=switch")).run_id == made.run_id
    asyncio.run(cell("router=hash", "seed=1"))
    runs = spectra_exp.load_runs(tmp_path)
    assert list(runs["router.name"]) == ["hash", "switch"] and set(runs["model.num_layers"]) == {2}
    assert float(runs["val_loss"].iloc[1]) == made.metrics["val_loss"]


def test_a_run_that_fails_raises_its_line(tmp_path, monkeypatch):
    def fails(self, checkpoint):
        raise SpectraError("the disk is gone")

    monkeypatch.setattr("spectra_exp.training.session.Session.run", fails)
    with pytest.raises(SpectraError, match="switch-.*: failed: the disk is gone"):
        spectra_exp.run(*SMALL, "router=switch", f"outputs={tmp_path}")


def test_a_comparison_is_that_of_the_tables(outputs):
    runs = spectra_exp.load_runs(outputs)
    assert len(runs) == 9 and runs["val_loss"].dtype == float and not runs.attrs["left_out"]
    found = spectra_exp.compare(runs, "Spectra", {"router": "switch"})
    (section,) = gather(outputs).sections[""]
    rows = {row.label: row for row in section.rows}
    assert found == section.compare(rows["Spectra"], rows["Switch"], "val_loss")
    assert found.n == 3 and found.p is not None and found.difference == pytest.approx(-0.28)


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ({"a": "Spectre", "b": "Switch"}, "a: unknown name 'Spectre'; did you mean 'Spectra'"),
        ({"a": {"rooter": "spectra"}, "b": "Switch"}, "did you mean 'router'"),
        ({"a": {"osr": "none"}, "b": "Switch"}, "two of its runs have one seed"),
        ({"a": "Odd", "b": "Switch"}, "may not be compared: other batches"),
        ({"a": "Spectra", "b": "Switch", "metric": "val_los"}, "did you mean 'val_loss'"),
        ({"a": "Spectra", "b": "Switch", "metric": "optim.beta"}, r"unknown name 'optim.beta'; (?!.*optim\.beta1)"),
        ({"a": "Spectra", "b": "Switch", "by": "domain"}, "by: unknown name 'domain'"),
    ],
)
def test_arms_that_cannot_be_compared_are_one_line(outputs, arms, told):
    with pytest.raises(ConfigError, match=told):
        spectra_exp.compare(spectra_exp.load_runs(outputs), **arms)


@pytest.mark.slow
def test_the_runs_of_a_launch_are_read_where_they_were_made(outputs, monkeypatch):
    monkeypatch.setattr(spectra_exp.api, "launch_study", lambda choice, given: 0)
    found = spectra_exp.load_runs(outputs)
    monkeypatch.setattr(spectra_exp.api, "load_runs", lambda folder: found if folder == "a (b)" else None)
    assert spectra_exp.launch("outputs='a (b)'", study="baselines").empty


def test_a_study_is_launched(tmp_path):
    slice_of_it = ["baseline=hash", "seed=0", *SMALL, f"outputs={tmp_path}"]
    runs = spectra_exp.launch(*slice_of_it, study="baselines")
    assert list(runs["baseline"]) == ["hash"] and list(runs["studies"]) == [("baselines",)]


def test_a_file_is_no_folder_of_outputs(tmp_path: Path) -> None:
    file = tmp_path / "runs.parquet"
    file.touch()
    with pytest.raises(ConfigError, match="runs.parquet is a file; give a folder"):
        spectra_exp.load_runs(file)
