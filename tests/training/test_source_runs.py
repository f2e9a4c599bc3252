"""Runs of upcycled and rerouted models: trained, resumed, measured, saved, and loaded by somebody else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.reporting.share import share
from spectra_exp.runs.plan import plan
from spectra_exp.training.build import build_model
from spectra_exp.training.callbacks.cadence import Cadence
from spectra_exp.training.execute import execute

SMALL = [
    "data.sequence_length=32",
    "data.train_words=4000",
    "data.validation_words=1500",
    "data.evaluation_tokens=512",
    "data.probe_tokens=128",
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "trainer.checkpoint_every=2",
    "logger.progress=false",
]


@pytest.fixture
def planned(tmp_path: Path, cache: Path, sources: Path):
    """A function from a source's name and overrides to the plan of a run of seconds."""
    prepare_environment()
    (tmp_path / "cache").symlink_to(cache)

    def make(name: str, *overrides: str):
        kind = "reroute" if name == "mixtral" else "upcycle"
        own = [f"model={kind}"] if not any(o.startswith("model=") for o in overrides) else []
        where = [f"model.source={sources / name}", f"outputs={tmp_path}"]
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


def test_a_shared_run_ends_and_samples_a_text_as_its_source_does(planned, sources, tmp_path):
    # A temperature without sampling is what transformers refuses to write once anything in it was changed.
    said = {"eos_token_id": [0, 7], "temperature": 0.6, "repetition_penalty": 1.25}
    file = sources / "llama" / "generation_config.json"
    before = file.read_text()
    file.write_text(json.dumps(said))
    try:
        run = planned("llama")
        finished(run)
    finally:
        file.write_text(before)
    shared = share(run.folder, tmp_path / "shared", tmp_path)
    assert said.items() <= json.loads((shared / "generation_config.json").read_text()).items()


def test_rerouted_run_trains_the_router_alone_where_asked(planned, sources):
    run = planned("mixtral", "router=switch", "model.freeze=all_but_router")
    summary = finished(run)
    assert summary["metrics"]["val_loss"] > 0 and summary["label"].startswith("Switch")
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


def with_a_token_beyond(folder: Path, source: Path, token: str) -> str:
    """A Llama with a row for each token of the source's tokenizer but the last, `token`."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    config = AutoConfig.from_pretrained(source, vocab_size=tokenizer.get_vocab_size(with_added_tokens=True))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.add_tokens([token])
    assert tokenizer.token_to_id(token) == config.vocab_size
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.mark.parametrize("router", ["switch", "hash"])
def test_a_token_beyond_the_embedding_that_no_text_has_is_of_no_interest(router, planned, sources, tmp_path):
    source = with_a_token_beyond(tmp_path / "padded", sources / "llama", "[PAD]")
    summary = finished(planned(source, f"router={router}"))
    # Causality is measured with tokens drawn from the vocabulary: one beyond the embedding would end the run.
    assert summary["causal"] is True and summary["metrics"]["val_loss"] > 0


def test_a_token_beyond_the_embedding_that_a_text_has_is_named(planned, sources, tmp_path):
    source = with_a_token_beyond(tmp_path / "odd", sources / "llama", "ee")
    with pytest.raises(ConfigError, match="has the token 'ee' of id 293, and the source only 293 ids; take it out"):
        planned(source)
    other = with_a_token_beyond(tmp_path / "other", sources / "llama", "th")
    with pytest.raises(ConfigError, match="the token 'th' of id 293, .* only 293 ids; give data.tokenizer=source"):
        planned(source, f"data.tokenizer={other}")


def test_a_router_that_the_text_does_not_teach_is_told_on_the_terminal(planned, sources, tmp_path, capsys):
    config = AutoConfig.from_pretrained(sources / "mixtral", num_experts_per_tok=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mixtral")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(sources / "mixtral" / file, tmp_path / "mixtral" / file)
    run = planned(tmp_path / "mixtral", "model=reroute", "router=native")
    finished(run)
    for said in (capsys.readouterr().err, (run.folder.path / "train.log").read_text()):
        assert said.count("the language model's loss gives the router no gradient") == 1


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
