"""Runs of upcycled and rerouted models: trained, resumed, measured, saved, and loaded by somebody else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.reporting.share import share
from spectra_exp.runs.plan import plan
from spectra_exp.training.build import build_model
from spectra_exp.training.callbacks.cadence import Cadence
from spectra_exp.training.execute import execute

SMALL = [
    "data.sequence_length=32", "data.train_words=4000", "data.validation_words=1500", "data.evaluation_tokens=512",
    "data.probe_tokens=128", "trainer.max_steps=4", "trainer.batch_size=2", "trainer.checkpoint_every=2",
    "logger.progress=false",
]  # fmt: skip


@pytest.fixture
def planned(tmp_path: Path, cache: Path, sources: Path):
    """A function from a source's name and overrides to the plan of a run of seconds."""
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)

    def make(name: str, *overrides: str):
        kind = "reroute" if name == "mixtral" else "upcycle"
        own = [f"model={kind}"] if not any(o.startswith("model=") for o in overrides) else []
        where = [f"model.source={sources}/{name}", f"outputs={tmp_path}"]
        return plan(load_experiment([*own, *where, *SMALL, *overrides]))

    return make


def finished(planned_run) -> dict:
    assert execute(planned_run, "") == "completed"
    return planned_run.folder.read_summary()


def test_upcycled_run_completes_and_others_can_load_it(planned, tmp_path):
    run = planned("gpt2", "model.num_experts=4", "model.num_shared=1")
    summary = finished(run)
    assert summary["model"] == "upcycle" and summary["causal"] is True
    wanted = {"val_loss", "load_cv", "output_gram_orthogonality", "expert_similarity_weight_mean"}
    assert wanted <= set(summary["metrics"])
    shared = share(run.folder, tmp_path / "shared", tmp_path)
    mine = AutoModelForCausalLM.from_pretrained(run.folder.latest_checkpoint()).eval()
    ids = torch.from_numpy(run.corpus.eval_blocks[:2].astype("int64"))
    with torch.no_grad():
        torch.save(mine(input_ids=ids, use_cache=False).logits, tmp_path / "logits.pt")
        torch.save(ids, tmp_path / "ids.pt")
    # In a process that knows nothing of us but `import spectra_exp`.
    code = f"""
import spectra_exp, sys
assert "transformers" not in sys.modules
from transformers import AutoModelForCausalLM, AutoTokenizer
import torch
model = AutoModelForCausalLM.from_pretrained({str(shared)!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({str(shared)!r})
assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.decode(tokenizer("the fox")["input_ids"]) == "the fox"
ids, expected = (torch.load({str(tmp_path)!r} + name, weights_only=True) for name in ("/ids.pt", "/logits.pt"))
assert (model(input_ids=ids, use_cache=False).logits - expected).abs().max() < 2e-6
assert model.generate(ids[:, :5], max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (2, 8)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_rerouted_run_trains_the_router_alone_where_asked(planned, sources):
    run = planned("mixtral", "router=switch", "model.freeze=all_but_router")
    summary = finished(run)
    assert summary["metrics"]["val_loss"] > 0 and summary["label"].startswith("switch")
    before = AutoModelForCausalLM.from_pretrained(sources / "mixtral", dtype=torch.float32).state_dict()
    after = load_file(run.folder.latest_checkpoint() / "model.safetensors")
    routers = {name for name in after if ".router." in name}
    for name in routers:
        source_name = name.removeprefix("backbone.").replace(".router.linear", "")
        assert not torch.equal(after[name], before[source_name]), name
    kept = {n for n in after if n not in routers and n != "routing_step"}
    assert kept and all(torch.equal(after[n], before[n.removeprefix("backbone.")]) for n in kept)


def test_native_router_is_measured_as_any_other(planned):
    summary = finished(planned("mixtral", "router=native"))
    assert summary["router"] == "native" and summary["causal"] and summary["metrics"]["routing_entropy"] > 0
    assert summary["parameters"]["active"] < summary["parameters"]["total"]


@pytest.mark.parametrize(
    "overrides, told", [([], "sdpa (no flash_attention_2: "), (["model.attention=eager"], "eager (asked for)")]
)
def test_the_log_says_which_attention_and_why(overrides, told, planned):
    run = planned("llama", *overrides)
    finished(run)
    assert (run.folder.path / "train.log").read_text().count(f"attention: {told}") == 1


def test_a_stopped_run_ends_with_the_numbers_of_one_that_was_not(planned, monkeypatch):
    # Mixtral's weights had other names in its first release; saving must not bring them back.
    whole = finished(planned("mixtral"))["metrics"]["val_loss"]
    run = planned("mixtral", "force=true")
    on_step_end = Cadence.on_step_end

    def fails(self, args, state, control, **kwargs):
        on_step_end(self, args, state, control, **kwargs)
        if state.global_step == 3:
            raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Cadence, "on_step_end", fails)
        assert execute(run, "") == "failed"
    saved = set(load_file(run.folder.latest_checkpoint() / "model.safetensors"))
    assert saved <= set(build_model(run.experiment, run.corpus).state_dict())
    assert finished(planned("mixtral"))["metrics"]["val_loss"] == whole


def test_upcycled_runs_of_one_seed_start_from_the_same_weights(planned):
    switch, spectra = (planned("llama", f"router={name}", "model.num_experts=2") for name in ("switch", "spectra"))
    one, other = (dict(build_model(p.experiment, p.corpus).named_parameters()) for p in (switch, spectra))
    shared = set(one) & set(other)
    assert any(".experts." in name for name in shared)
    assert all(torch.equal(one[name], other[name]) for name in shared)


def test_the_reference_configuration_trains_on_a_small_model_of_its_kind(planned):
    run = planned("smolvlm", "model=spectra_small", "model.num_experts=4", "trainer.neftune_alpha=5", "router.dim=4")
    summary = finished(run)
    assert summary["model"] == "spectra_small" and summary["parameters"]["total"] > 0
    state = json.loads((run.folder.latest_checkpoint() / "trainer_state.json").read_text())
    assert state["global_step"] == 4
