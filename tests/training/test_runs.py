from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from spectra_exp.data.embedded_rounds import ROUNDS_PAIR
from spectra_exp.foundations import stopping
from spectra_exp.runs import provenance
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths
from spectra_exp.runs.stored import StoredRun
from spectra_exp.training.execute import execute
from spectra_exp.training.session import Session

CONTRACT = (
    "config.yaml",
    ".hydra",
    "environment.json",
    "history.parquet",
    "documents.parquet",
    "routing",
    "checkpoints",
    "summary.json",
    "train.log",
)
# The command names the folder of outputs.
UNSTABLE = ("timings", "started", "finished", "command")


def stable(folder) -> dict:
    summary = folder.read_summary()
    return {k: v for k, v in summary.items() if k not in UNSTABLE}


def test_a_run_leaves_what_the_contract_says(finished) -> None:
    p = finished()
    assert all((p.folder.path / name).exists() for name in CONTRACT)
    summary = p.folder.read_summary()
    assert summary["steps"] == 12 and summary["causal"] is True and summary["causal_training"] is False
    assert summary["metrics"]["val_loss"] < summary["unigram_loss"] + 1
    assert {"load_cv", "max_vio", "expert_overlap", "routing_consistency", "domain_purity"} <= set(summary["metrics"])
    assert {"load_cv", "max_vio", "expert_overlap", "routing_consistency", "domain_purity"} <= set(summary["floors"])
    assert len(summary["metrics_by_layer"]["load_cv"]) == 2
    history = pd.read_parquet(p.folder.history)
    assert list(history.columns) == ["step", "fraction", "split", "layer", "metric", "value"]
    evaluated = history[(history.split == "validation") & (history.metric == "val_loss")].step.tolist()
    assert evaluated == [0, 1, 3, 6, 9, 12] == list(snapshot_paths(p.folder.routing))
    trained = set(history[history.split == "train"].metric)
    assert {"train_loss", "grad_norm_router", "grad_norm_experts", "grad_norm_other", "speciality_loss"} <= trained


def test_the_purity_of_two_orders_of_words_is_of_these_domains(planned) -> None:
    p = planned("data.document_words=20", "trainer.max_steps=1")
    assert execute(p, "") == "completed"
    summary, snapshot = p.folder.read_summary(), load_snapshot(snapshot_paths(p.folder.routing)[1])
    # By the names of the domains that the documents were scored with, from the counts that the run keeps.
    scored = pd.read_parquet(p.folder.documents)
    counts_LGE = snapshot.document_counts_LGE
    shares = [
        np.stack([layer_GE[(scored.domain == name).to_numpy()].sum(axis=0) for name in ROUNDS_PAIR])
        for layer_GE in counts_LGE
    ]
    shares = [pair_2E / pair_2E.sum(axis=1, keepdims=True) for pair_2E in shares]
    expected = [float((pair_2E / pair_2E.sum(axis=0)).max(axis=0).mean()) for pair_2E in shares]
    assert summary["metrics_by_layer"]["order_purity"] == pytest.approx(expected)
    assert 0.5 < summary["floors"]["order_purity"] < 0.7


@pytest.mark.parametrize("damage", ["edited", "removed"])
def test_document_scores_that_were_changed_since_are_named(planned, damage: str) -> None:
    p = planned("trainer.max_steps=1")
    assert execute(p, "") == "completed"
    run = StoredRun(p.folder.path)
    assert run.refusal is None and "documents.parquet" in run.summary.seal["files"]
    rows = run.scores("documents")
    p.folder.documents.unlink()
    if damage == "edited":
        rows.assign(loss=rows["loss"] + 1e-9).to_parquet(p.folder.documents)
    assert "edited, missing or added" in (found := StoredRun(p.folder.path).refusal) and "documents.parquet" in found
    rows.drop(columns="loss").to_parquet(p.folder.documents)
    damaged = StoredRun(p.folder.path)
    assert damaged.scores("documents") is None and "its columns: id, domain" in damaged.problems[p.folder.documents]


def test_other_inference_rules_are_measured_on_the_same_weights(planned, finished) -> None:
    p = finished()
    by_rule = p.folder.read_summary()["metrics_by_inference"]
    assert sorted(by_rule) == ["false", "true"]
    losses = {by_rule["false"]["val_loss"], by_rule["true"]["val_loss"], p.folder.read_summary()["metrics"]["val_loss"]}
    assert len(losses) == 3
    softmax = planned("osr.potential_rate=1e-9", "trainer.max_steps=2")
    execute(softmax, "")
    # With potentials at zero the dual rule is the softmax.
    summary = softmax.folder.read_summary()
    assert summary["metrics_by_inference"]["false"]["val_loss"] == pytest.approx(
        summary["metrics"]["val_loss"], abs=1e-5
    )


def test_counts_on_disk_are_the_executed_assignments(planned) -> None:
    p = planned("baseline=switch_top2")
    execute(p, "")
    counts = load_snapshot(snapshot_paths(p.folder.routing)[12]).counts_LE
    assert counts.sum(axis=1).tolist() == [2 * p.corpus.eval_blocks.size] * 2
    cv = (counts.std(axis=1) / counts.mean(axis=1)).mean()
    assert p.folder.read_summary()["metrics"]["load_cv"] == pytest.approx(cv)


def test_the_checkpoint_is_a_model_that_scores_as_reported(finished) -> None:
    p = finished()
    model = AutoModelForCausalLM.from_pretrained(p.folder.latest_checkpoint()).eval()
    ids = torch.from_numpy(p.corpus.eval_blocks.astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss) == pytest.approx(p.folder.read_summary()["metrics"]["val_loss"], abs=1e-4)


def test_twice_gives_the_same_numbers_to_the_last_digit(planned, finished) -> None:
    p = finished("model.dropout=0.1")
    first, history = stable(p.folder), pd.read_parquet(p.folder.history)
    again = planned("model.dropout=0.1", "force=true")
    assert execute(again, "") == "completed"
    assert stable(again.folder) == first
    typed = again.folder.read_summary()["command"]
    assert typed.startswith("python train.py model.num_layers=2 ") and typed.endswith(" model.dropout=0.1 force=true")
    assert history.equals(pd.read_parquet(again.folder.history))


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["baseline=switch_top2", "optim=muon", "trainer.accumulation=2", "trainer.neftune_alpha=5"],
        ["baseline=mlp"],
        ["baseline=beta_memory"],
        ["baseline=rmoe"],
        ["baseline=causal_bias"],
        ["baseline=null_experts"],
        ["osr.potentials=quantile", "osr.settle_rule=quantile", "osr.online_rate=0.1", "trainer.accumulation=2"],
    ],
)
def test_a_stopped_run_ends_as_if_it_never_had(planned, finished, monkeypatch, extra) -> None:
    p = finished("model.dropout=0.1", *extra)
    whole, history = stable(p.folder), pd.read_parquet(p.folder.history)
    p.folder.clear()
    stop_at(monkeypatch, 7)
    assert execute(p, "") == "stopped"
    stopped = p.folder.read_summary()
    assert stopped["steps"] == 7
    monkeypatch.undo()
    assert execute(planned("model.dropout=0.1", *extra), "") == "completed"
    assert stable(p.folder) == whole
    timings = p.folder.read_summary()["timings"]
    assert timings["total_wall_s"] > timings["wall_s"] + stopped["timings"]["wall_s"] / 2
    assert history.equals(pd.read_parquet(p.folder.history))


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the signal callback see a SIGTERM after `step`."""
    from spectra_exp.training.callbacks.signals import StopOnSignal

    plain = StopOnSignal.on_step_end

    def noticed(self, args, state, control, **kwargs):
        stopping.ask("SIGTERM" if state.global_step == step else None)
        plain(self, args, state, control, **kwargs)
        stopping.ask(None)

    monkeypatch.setattr(StopOnSignal, "on_step_end", noticed)


def test_a_resume_that_forgets_the_router_state_would_be_caught(finished, monkeypatch) -> None:
    """Planted fault: potentials back to zero on resume give other numbers, so the comparison above can fail."""
    p = finished()
    whole = stable(p.folder)
    p.folder.clear()
    stop_at(monkeypatch, 7)
    execute(p, "")
    monkeypatch.undo()
    plain = Session.run

    def forgetful(self, checkpoint):
        load = self.trainer._load_from_checkpoint

        def load_and_forget(*args, **kwargs):
            load(*args, **kwargs)
            for layer in self.model.routed_layers:
                layer.router.hard_potentials_E.zero_()

        self.trainer._load_from_checkpoint = load_and_forget
        return plain(self, checkpoint)

    monkeypatch.setattr(Session, "run", forgetful)
    execute(p, "")
    assert stable(p.folder)["metrics"] != whole["metrics"]


def test_a_finished_run_is_left_alone_and_joins_a_study(planned, finished, capsys) -> None:
    p = finished()
    before = p.folder.history.stat().st_mtime_ns
    assert execute(planned("study=demo"), "") == "completed"
    assert "already completed" in capsys.readouterr().err
    assert p.folder.history.stat().st_mtime_ns == before
    assert p.folder.read_summary()["studies"] == ["demo"]


def test_stale_runs_are_made_again_only_when_asked(planned, finished, monkeypatch) -> None:
    p = finished()
    monkeypatch.setattr(provenance, "code_version", lambda: "other")
    written = p.folder.history.stat().st_mtime_ns
    execute(planned(), "")
    assert p.folder.history.stat().st_mtime_ns == written
    execute(planned("refresh=stale"), "")
    assert p.folder.history.stat().st_mtime_ns > written


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e4])
def test_a_bad_loss_ends_as_diverged_with_what_is_known(planned, monkeypatch, value) -> None:
    from spectra_exp.training.recorder import Recorder

    plain = Recorder.end_step

    def bad(self):
        loss = plain(self)
        return value if len(self.step_seconds) == 5 else loss

    monkeypatch.setattr(Recorder, "end_step", bad)
    p = planned()
    assert execute(p, "") == "diverged"
    summary = p.folder.read_summary()
    assert summary["steps"] == 5 and "step 5" in summary["error"]
    assert not pd.read_parquet(p.folder.history).empty
    assert execute(planned(), "") == "diverged"  # an end that stands


def test_a_corrupt_checkpoint_is_named_and_the_run_starts_over(planned, finished, monkeypatch, caplog) -> None:
    p = finished()
    whole = stable(p.folder)
    p.folder.clear()
    stop_at(monkeypatch, 7)
    execute(p, "")
    monkeypatch.undo()
    file = p.folder.latest_checkpoint() / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with caplog.at_level("WARNING"):
        assert execute(planned(), "") == "completed"
    assert any("step-00000007" in r.getMessage() for r in caplog.records)
    assert stable(p.folder) == whole


@pytest.mark.parametrize(
    "other, said",
    [("model.num_experts=6", "made with 6 experts, and model.num_experts is 4"), ("router.dim=2", "is [")],
)
def test_a_checkpoint_of_another_model_is_refused_in_one_line(planned, monkeypatch, capsys, other, said) -> None:
    stop_at(monkeypatch, 7)
    theirs, ours = planned(other), planned()
    execute(theirs, "")
    execute(ours, "")
    monkeypatch.undo()
    shutil.rmtree(ours.folder.path / "checkpoints")
    shutil.copytree(theirs.folder.path / "checkpoints", ours.folder.path / "checkpoints")
    capsys.readouterr()
    assert execute(planned(), "") == "failed"
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "force=true" in line and len(line) < 500


def test_a_held_folder_is_refused(planned, capsys) -> None:
    p = planned()
    with p.folder.hold():
        assert execute(p, "") == "in use"
    assert "in use by process" in capsys.readouterr().err
    assert not p.folder.summary.exists()


def test_a_full_disk_fails_in_one_line_and_can_go_on(planned, finished, monkeypatch) -> None:
    import errno

    from spectra_exp.runs.folder import RunFolder

    p = finished()
    whole = stable(p.folder)
    p.folder.clear()
    plain = RunFolder.commit_checkpoint

    def full(self, staging, step, keep=()):
        if step == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, staging, step, keep)

    monkeypatch.setattr(RunFolder, "commit_checkpoint", full)
    assert execute(p, "") == "failed"
    assert "No space left" in p.folder.read_summary()["error"]
    monkeypatch.undo()
    assert execute(planned(), "") == "completed"
    assert stable(p.folder) == whole


def test_pairing_by_hashes(planned, finished) -> None:
    full, ablated, other = finished(), planned("ablation=no_gru"), planned("seed=1")
    for p in (ablated, other):
        execute(p, "")
    a, b, c = (p.folder.read_summary() for p in (full, ablated, other))
    assert a["fingerprints"]["batches"] == b["fingerprints"]["batches"] != c["fingerprints"]["batches"]
    shared = set(a["initial_weights"]) & set(b["initial_weights"])
    assert any("experts" in name for name in shared) and any("expression" in name for name in shared)
    assert all(a["initial_weights"][n] == b["initial_weights"][n] for n in shared)
    assert sum(a["initial_weights"][n] != c["initial_weights"][n] for n in set(a["initial_weights"])) > 10


def test_bf16_gradient_checkpointing_and_dense_run_through(planned) -> None:
    for overrides in (
        ["trainer.precision=bf16"],
        ["trainer.gradient_checkpointing=true"],
        ["baseline=dense"],
        ["baseline=hash"],
    ):
        p = planned("trainer.max_steps=3", *overrides)
        assert execute(p, "") == "completed", overrides
        assert p.folder.read_summary()["causal"] is True


def test_gradient_checkpointing_changes_no_number(planned, finished) -> None:
    plain, saved = finished(), planned("trainer.gradient_checkpointing=true")
    execute(saved, "")
    assert saved.folder.read_summary()["metrics"] == pytest.approx(plain.folder.read_summary()["metrics"], rel=1e-3)


def test_the_summary_is_strict_json(finished) -> None:
    p = finished()
    constants: list[str] = []
    summary = json.loads(p.folder.summary.read_text(), parse_constant=constants.append)
    assert summary["status"] == "completed" and not constants
