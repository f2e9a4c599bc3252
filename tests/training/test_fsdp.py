"""Two processes under FSDP make the run that one process makes of the same global batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.multiprocessing
from accelerate.utils import DistributedType
from fsdp_cases import PARTS, on_gpu, on_rank
from rank_runs import SHARDABLE, SHORT, differences, places, run_of, summary_of
from ranks_cases import RANKS, SWITCH, made
from zero_cases import SPECTRA

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.config.schema import TrainerConfig
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.runs.ranks import with_processes
from spectra_exp.training.sharding import NotSharded, check_distributed

LOSSES = ["train_loss", "val_loss"]
NORMS = ["grad_norm_router", "grad_norm_experts", "grad_norm_other", "update_ratio_router", "experts_without_gradient"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache) -> Path:
    """Outputs of every case."""
    if torch.cuda.is_available():
        pytest.skip("FSDP would shard over the GPUs")
    return made_by(on_rank, tmp_path_factory.mktemp("fsdp"), cache)


def made_by(entry, folder: Path, cache: Path) -> Path:
    names = ("switch", "spectra", "full_shard", "shard_grad_op", "resumed", "ddp", "unsharded", "after")
    places(folder, cache, names)
    assert made(SHARDABLE, f"{folder}/switch", *SWITCH) == made(SHARDABLE, f"{folder}/spectra", *SPECTRA) == "completed"
    torch.multiprocessing.spawn(entry, args=(str(folder), SHARDABLE), nprocs=RANKS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("sharded, alone", [("full_shard", "switch"), ("shard_grad_op", "spectra")])
def test_losses_metrics_and_weights_are_those_of_one_process(sharded, alone, folder):
    apart = differences(folder / alone, folder / sharded)
    assert apart[LOSSES].max() < 1e-5 and apart[NORMS].max() < 1e-5
    assert apart.drop("val_perplexity").max() < 2e-3
    assert summary_of(folder / alone)["fingerprints"] == summary_of(folder / sharded)["fingerprints"]
    weights, expected = (
        SpectraMoeForCausalLM.from_pretrained(next((run_of(folder / name) / "checkpoints").iterdir()))
        for name in (sharded, alone)
    )
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(weights.get_parameter(name), parameter, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(folder):
    assert differences(folder / "full_shard", folder / "resumed").max() == 0
    assert "going on from step-00000005" in (run_of(folder / "resumed") / "train.log").read_text()


@pytest.mark.slow
def test_what_posed_as_fsdp_is_found_out(folder):
    """Trainer's own fall back on data parallelism, and a model that was told to be sharded and is not."""
    told = {name: summary_of(folder / name)["error"] for name in ("ddp", "unsharded")}
    assert told["ddp"] == "trainer.fsdp=full_shard was asked for, but Trainer made MULTI_CPU of it"
    held, whole = (int(word) for word in told["unsharded"].split() if word.isdecimal())
    assert held == RANKS * whole and "numbers" in told["unsharded"]
    assert all(summary_of(folder / name)["steps"] == 0 for name in told)


@pytest.mark.parametrize("asked, found", [("deepspeed=zero2", "MULTI_CPU"), ("fsdp=none", "FSDP")])
def test_a_run_distributed_otherwise_than_asked_is_ended(asked, found):
    trainer = SimpleNamespace(accelerator=SimpleNamespace(distributed_type=DistributedType(found)))
    key, value = asked.split("=")
    with pytest.raises(NotSharded, match=f"trainer.{asked} was asked for, but Trainer made {found} of it"):
        check_distributed(trainer, TrainerConfig(**{key: value}))


@pytest.mark.slow
def test_a_rank_holds_its_part_alone(folder):
    parts = [torch.load(folder / f"{PARTS}{rank}.pt") for rank in range(RANKS)]
    whole = sum(size for size, _ in parts[0])
    for part in parts:
        assert sum(own for _, own in part) == pytest.approx(whole / RANKS, rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < RANKS, reason="needs two CUDA devices")
def test_two_gpus_make_the_run_of_one(tmp_path_factory, cache):
    folder = made_by(on_gpu, tmp_path_factory.mktemp("fsdp"), cache)
    for sharded, alone in (("full_shard", "switch"), ("shard_grad_op", "spectra")):
        assert differences(folder / alone, folder / sharded)[LOSSES].max() < 1e-3
    assert differences(folder / "full_shard", folder / "resumed")[LOSSES].max() < 1e-5


@pytest.mark.parametrize(
    "line, told",
    [
        ("trainer.deepspeed=zero2", "'full_shard' and trainer.deepspeed=zero2 exclude each other; drop one"),
        ("optim=muon", "takes the matrices apart that optim=muon needs whole"),
        ("trainer.precision=bf16", "would make the routers bf16 too"),
        ("router.shared=true", "cannot share one router among layers"),
    ],
)
def test_what_fsdp_cannot_do_is_refused(line, told, monkeypatch):
    own = SHORT if line.startswith("optim") else SHARDABLE
    prepare_environment()
    monkeypatch.setattr("spectra_exp.config.rules_running.installed", lambda name: True)
    monkeypatch.setattr("spectra_exp.config.rules_running.training_device", lambda wanted: "cuda")
    with pytest.raises(ConfigError, match=told):
        load_experiment([*own, "trainer.fsdp=full_shard", "trainer.processes=2", line])


def test_the_cpu_is_refused():
    prepare_environment()
    told = "on the CPU Trainer would not shard, .* give trainer.deepspeed=zero2 or zero3"
    with pytest.raises(ConfigError, match=told):
        load_experiment([*SHARDABLE, "trainer.fsdp=full_shard", "trainer.processes=2", "trainer.device=cpu"])


def test_one_process_is_refused(monkeypatch):
    prepare_environment()
    monkeypatch.setattr("spectra_exp.config.rules_running.training_device", lambda wanted: "cuda")
    with pytest.raises(ConfigError, match="'full_shard' shares out over processes, and there is one"):
        with_processes(load_experiment([*SHARDABLE, "trainer.fsdp=full_shard"]))
