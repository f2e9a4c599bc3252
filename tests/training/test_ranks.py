"""Two processes make the run that one process makes of the same global batches."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
import torch.multiprocessing
from rank_runs import SHORT, differences, places, run_of, summary_of
from ranks_cases import EMPTY, FAILS_AT, MUON, RANKS, SETTLED, SHARED, SPECTRA, SWITCH, made, on_rank

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.runs.ranks import LOST, with_processes
from spectra_exp.training.launcher import execute_in_processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache) -> Path:
    """Outputs of every case, made by two processes."""
    names = ("alone", "switch", "own", "whole", "resumed", "failed", "talk_alone", "talk", "unweighted_talk")
    names += ("muon_alone", "muon", "muon_own", "muon_resumed", "settled_alone", "settled")
    names += ("empty_alone", "empty", "shared_alone", "shared")
    folder = places(tmp_path_factory.mktemp("ranks"), cache, names)
    assert made(SHORT, f"{folder}/alone", *SWITCH) == "completed"
    assert made(SHORT, f"{folder}/muon_alone", *MUON) == made(SHORT, f"{folder}/settled_alone", *SETTLED) == "completed"
    assert made(SHORT, f"{folder}/empty_alone", *EMPTY) == made(SHORT, f"{folder}/shared_alone", *SHARED) == "completed"
    talk = conversations(folder / "conversations")
    assert made(SHORT, f"{folder}/talk_alone", *SWITCH, *talk) == "completed"
    torch.multiprocessing.spawn(on_rank, args=(str(folder), SHORT, talk), nprocs=RANKS)
    return folder


def conversations(folder: Path) -> list[str]:
    """Overrides for conversations of which the assistant says very unequal parts; their files are written here."""
    rows = []
    for number in range(120):
        words = " ".join(f"number {i}" for i in range(1 + number * number % 23))
        messages = [{"role": "user", "content": words}, {"role": "assistant", "content": words[: 3 * number % 50 + 1]}]
        rows.append({"messages": messages, "source": "counting"})
    (folder / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data" / "train.parquet")
    front = "configs:\n- config_name: all\n  data_files:\n  - split: train\n    path: data/train.parquet"
    (folder / "README.md").write_text(f"---\n{front}\n---\n")
    words = f"data=smoltalk data.path={folder} data.validation_split=null data.loss_on=assistant"
    return [*words.split(), "data.vocabulary_size=300", "data.evaluation_tokens=256", "data.probe_tokens=64"]


@pytest.mark.slow
def test_losses_and_metrics_are_those_of_one_process(folder):
    apart = differences(folder / "alone", folder / "switch")
    assert {"train_loss", "val_loss", "load_balance_loss", "load_cv_batch", "grad_norm_router", "load_cv"} <= set(
        apart.index
    )
    assert apart[["train_loss", "val_loss", "load_balance_loss"]].max() < 1e-5
    assert apart.drop("val_perplexity").max() < 2e-3
    one, two = summary_of(folder / "alone"), summary_of(folder / "switch")
    assert one["fingerprints"] == two["fingerprints"] and one["run_id"] != two["run_id"]


@pytest.mark.slow
def test_labels_that_ranks_have_unequal_numbers_of_count_alike(folder):
    apart = differences(folder / "talk_alone", folder / "talk")
    assert apart[["train_loss", "val_loss"]].max() < 1e-5
    assert differences(folder / "talk_alone", folder / "unweighted_talk")["train_loss"] > 1e-3


@pytest.mark.slow
def test_muon_is_given_the_gradient_of_all_ranks(folder):
    """Its step forgets how large a gradient is, so a rank's own would look as good."""
    losses = ["train_loss", "val_loss"]
    apart = differences(folder / "muon_alone", folder / "muon")
    assert apart[losses].max() < 1e-5 and apart["grad_norm_experts"] < 1e-5
    assert differences(folder / "muon_alone", folder / "muon_own")[losses].max() > 1e-3
    assert differences(folder / "muon", folder / "muon_resumed").max() == 0


@pytest.mark.slow
def test_state_settles_over_the_batches_of_all_ranks(folder):
    """A plan over a rank's part of a batch would have other loads, and end in other potentials."""
    apart = differences(folder / "settled_alone", folder / "settled")
    assert apart[["train_loss", "val_loss", "load_cv"]].max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key"), [("empty", "null_rate"), ("shared", "load_cv")])
def test_empty_and_shared_experts_are_those_of_one_process(folder, name, key):
    apart = differences(folder / f"{name}_alone", folder / name)
    assert key in apart.index and apart[["train_loss", "val_loss", "load_balance_loss"]].max() < 1e-5
    assert apart.drop("val_perplexity").max() < 2e-3


@pytest.mark.slow
def test_figures_of_one_rank_would_be_others(folder):
    assert differences(folder / "alone", folder / "own")["train_loss"] > 1e-3
    prints = [summary_of(folder / name)["fingerprints"]["batches"] for name in ("alone", "own")]
    assert prints[0] != prints[1]


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(folder):
    assert differences(folder / "whole", folder / "resumed").max() == 0
    assert "going on from step-00000005" in (run_of(folder / "resumed") / "train.log").read_text()
    assert summary_of(folder / "whole")["metrics"] == summary_of(folder / "resumed")["metrics"]


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_run_of_all(folder):
    summary = summary_of(folder / "failed")
    assert summary["status"] == "failed" and summary["error"] == LOST and summary["steps"] == FAILS_AT
    own = json.loads((run_of(folder / "failed") / "summary.rank1.json").read_text())
    assert own["error"] == "RuntimeError: planted"
    assert "planted" in (run_of(folder / "failed") / "train.rank1.log").read_text()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_line(planned, capfd):
    run = planned("trainer.max_steps=4000", "trainer.checkpoint_every=2", "trainer.processes=2")

    def kill_second() -> None:
        while not run.folder.checkpoints():
            time.sleep(0.1)
        ours = [p for p in psutil.Process().children() if p.environ().get("RANK") == "1"]
        ours[0].send_signal(signal.SIGKILL)

    with ThreadPoolExecutor() as pool:
        killer = pool.submit(kill_second)
        assert execute_in_processes(run) == "failed"
        killer.result(timeout=0)
    (line,) = capfd.readouterr().err.strip().splitlines()
    told = "process 1 of 2 was ended by SIGKILL; the same command goes on from the last checkpoint"
    assert line == f"error: {run.folder.run_id}: failed: {told}"
    assert run.folder.read_summary()["error"] == told


@pytest.mark.parametrize(
    "line, started, told",
    [
        ("trainer.processes=3", 1, "trainer.batch_size: 4 sequences cannot be shared equally by 3 processes"),
        ("trainer.processes=4", 2, "trainer.processes: 4, but 2 were started"),
    ],
)
def test_processes_that_do_not_fit_are_refused(line, started, told, monkeypatch):
    prepare_environment()
    experiment = load_experiment([*SHORT, *SPECTRA, *line.split()])
    monkeypatch.setenv("WORLD_SIZE", str(started))
    with pytest.raises(ConfigError, match=told):
        with_processes(experiment)


def test_torchrun_says_how_many(monkeypatch):
    prepare_environment()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert with_processes(load_experiment(SHORT)).trainer.processes == 2
