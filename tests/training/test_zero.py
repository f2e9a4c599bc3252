"""Two processes under ZeRO 1, 2 and 3 make the run that one process makes of the same global batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch.multiprocessing
from rank_runs import SHARDABLE, SHORT, differences, places, run_of, summary_of
from ranks_cases import RANKS, SWITCH, made
from zero_cases import SPECTRA, on_rank

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.model import SpectraMoeForCausalLM

LOSSES = ["train_loss", "val_loss"]
# DeepSpeed keeps gradients to itself, but for the norm of all.
UNKNOWN = {"grad_norm_router", "grad_norm_experts", "grad_norm_other", "experts_without_gradient"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache) -> Path:
    """Outputs of every case."""
    pytest.importorskip("deepspeed", reason="deepspeed is not installed (pip install 'spectra-exp[deepspeed]')")
    names = ("switch", "spectra", "zero1", "zero2", "zero3", "resumed")
    folder = places(tmp_path_factory.mktemp("zero"), cache, names)
    assert made(SHARDABLE, f"{folder}/switch", *SWITCH) == made(SHARDABLE, f"{folder}/spectra", *SPECTRA) == "completed"
    torch.multiprocessing.spawn(on_rank, args=(str(folder), SHARDABLE), nprocs=RANKS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage, alone", [("zero1", "switch"), ("zero2", "switch"), ("zero3", "spectra")])
def test_losses_and_metrics_are_those_of_one_process(stage, alone, folder):
    apart = differences(folder / alone, folder / stage, lacking=UNKNOWN)
    assert apart[LOSSES].max() < 1e-5
    assert apart[["update_ratio_router", "update_ratio_experts", "load_cv_batch", "load_cv"]].max() < 1e-3
    assert summary_of(folder / alone)["fingerprints"] == summary_of(folder / stage)["fingerprints"]
    weights = SpectraMoeForCausalLM.from_pretrained(next((run_of(folder / stage) / "checkpoints").iterdir()))
    expected = SpectraMoeForCausalLM.from_pretrained(next((run_of(folder / alone) / "checkpoints").iterdir()))
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(weights.get_parameter(name), parameter, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage, parameters", [("zero1", 1.0), ("zero2", 1.0), ("zero3", 0.5)])
def test_what_the_stage_shares_out_is_shared_out(stage, parameters, folder):
    for rank in range(RANKS):
        held = json.loads((folder / f"{stage}.rank{rank}.json").read_text())
        assert held["type"] == "DEEPSPEED"
        # A part is filled up to a whole number of elements on each rank.
        assert held["optimizer"] == pytest.approx(held["all"] / RANKS, rel=0.02)
        assert held["parameters"] == pytest.approx(held["all"] * parameters, rel=0.02)


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(folder):
    assert differences(folder / "zero3", folder / "resumed").max() < 1e-6
    assert "going on from step-0000000" in (run_of(folder / "resumed") / "train.log").read_text()


@pytest.mark.parametrize(
    "line, told",
    [
        ("optim=muon", "flattens the matrices that optim=muon needs whole"),
        ("trainer.precision=bf16", "would make the routers bf16 too"),
    ],
)
def test_what_zero_cannot_do_is_refused(line, told, monkeypatch):
    own = SHORT if line.startswith("optim") else SHARDABLE
    prepare_environment()
    monkeypatch.setattr("spectra_exp.config.rules_running.installed", lambda name: True)
    with pytest.raises(ConfigError, match=told):
        load_experiment([*own, "trainer.deepspeed=zero2", "trainer.processes=2", line])


def test_a_missing_deepspeed_is_told(monkeypatch):
    prepare_environment()
    monkeypatch.setattr("spectra_exp.config.rules_running.installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"deepspeed is not installed; pip install 'spectra-exp\[deepspeed\]'"):
        load_experiment([*SHARDABLE, "trainer.deepspeed=zero1"])
