"""What a shared run's folder holds, and when there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from spectra_exp.data.cache import cached_folder
from spectra_exp.data.tokenizer import train_bpe
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.reporting.model_card import model_card
from spectra_exp.reporting.share import main, share
from spectra_exp.runs.folder import find_run

CONFIG = {
    "seed": 3,
    "outputs": "outputs",
    "router": {"name": "switch"},
    "model": {"num_experts": 8, "top_k": 2, "source": "someone/model"},
    "data": {"name": "embedded", "tokenizer": None, "sequence_length": 128},
    "trainer": {
        "max_steps": 1200,
        "batch_size": 16,
        "accumulation": 1,
        "eval_every": 0,
        "cpu_threads": 1,
        "evaluation_batch_size": 32,
        "precision": "float32",
    },
}
SUMMARY = {
    "schema": 1,
    "run_id": "switch-s0-01234567",
    "cell_id": "c",
    "name": "n",
    "label": "switch top2",
    "router": "switch",
    "osr": "none",
    "selection": "topk",
    "temperature": "t1_0",
    "baseline": "none",
    "ablation": "none",
    "model": "upcycle",
    "data": "embedded",
    "status": "completed",
    "seed": 3,
    "steps": 1200,
    "causal": True,
    "parameters": {"total": 1234567, "active": 234567},
    "flops_per_token": 4.5e6,
    "unigram_loss": 5.25,
    "metrics": {"val_loss": 3.875, "val_perplexity": 48.2, "load_cv": 0.0625},
    "metrics_training_rule": {},
    "floors": {"load_cv": 0.03125},
    "fingerprints": {"data": "0" * 32},
    "command": "python train.py model=upcycle 'data.train=/home/me/secret of mine/train.jsonl' seed=3",
}


@pytest.fixture
def run(tmp_path: Path):
    folder = tmp_path / "runs" / SUMMARY["run_id"]
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return find_run(SUMMARY["run_id"], tmp_path)


def test_the_card_says_what_the_summary_says():
    text = model_card(SUMMARY, CONFIG)
    card = ModelCard(text)
    assert card.data.base_model == "someone/model" and card.data.library_name == "transformers"
    results = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert results == {"val_loss": 3.875, "val_perplexity": 48.2}
    for expected in (
        "| val_loss | 3.875 | 5.25 | lower |",
        "| load_cv | 0.0625 | 0.03125 | lower |",
        "import spectra_exp",
        "1,234,567, of which 234,567 active",
        "causal (measured): yes",
        "data.train=train.jsonl seed=3",
    ):
        assert expected in text
    assert "secret" not in text


def test_the_card_warns_of_a_model_that_sees_the_future():
    text = model_card(SUMMARY | {"causal": False}, CONFIG)
    assert "causal (measured): no: its predictions depend on later tokens" in text


def test_text_of_a_summary_is_no_markup_in_the_card():
    evil = "<script>alert(1)</script>\n# mine"
    card = model_card(SUMMARY | {"label": evil, "run_id": evil, "command": f"python ```\n{evil}"}, CONFIG)
    text, _, code = card.partition("---\n\n")[2].partition("Made by")
    assert "<script" not in text and "\n# mine" not in text and "&lt;script>" in text
    # In a block of code it stays what it is: nothing ends the block before its own last line.
    assert code.strip().startswith("````\npython '```'") and code.strip().endswith("\n````")


def test_a_local_source_is_named_and_its_folder_is_not(tmp_path):
    (tmp_path / "secret" / "base").mkdir(parents=True)
    own = CONFIG | {"model": CONFIG["model"] | {"source": str(tmp_path / "secret" / "base")}}
    text = model_card(SUMMARY, own)
    assert "secret" not in text and "upcycle of base" in text and "base_model" not in text


def test_what_cannot_be_shared_is_said_in_one_line_and_leaves_nothing(run, tmp_path, capsys):
    with pytest.raises(SpectraError, match=f"did you mean '{run.run_id}'"):
        find_run(run.run_id[:-1], tmp_path)
    with pytest.raises(SpectraError, match="no whole checkpoint is left"):
        share(run, tmp_path / "new", tmp_path)
    checkpoint = run.stage_checkpoint(1200)
    (checkpoint / "config.json").write_text("{}")
    run.commit_checkpoint(checkpoint, 1200)
    with pytest.raises(SpectraError, match="step-00001200: it holds no weights"):
        share(run, tmp_path / "new", tmp_path)
    checkpoint = run.stage_checkpoint(1200)
    (checkpoint / "model.safetensors").write_bytes(b"")
    run.commit_checkpoint(checkpoint, 1200)
    assert main([run.run_id, str(tmp_path / "new"), f"outputs={tmp_path}"]) == 1
    assert "tokenised data is no longer in the cache" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    with pytest.raises(SpectraError, match="taken is there already"):
        share(run, tmp_path / "taken", tmp_path)
    run.summary.write_text(json.dumps(SUMMARY | {"status": "failed"}))
    with pytest.raises(SpectraError, match="failed; only a completed run"):
        share(run, tmp_path / "new", tmp_path)
    assert not list(tmp_path.glob("*new*")) + list(tmp_path.glob(".*new*"))


def test_the_card_shows_texts_of_the_run_and_runs_none_of_them():
    forged = "<script>alert(1)</script>\n\n# [x](javascript:y)"
    card = model_card(SUMMARY | {"label": forged, "model": forged, "command": f"train.py\n```\n{forged}"}, CONFIG)
    before, _, command = card.partition("Made by")
    assert "<script" not in before and before.count("\n# ") == 1
    # Escaped brackets make no link.
    assert before.count("](") == before.count(r"\](") == 2
    # A longer fence around it: the three backticks inside end nothing.
    fences = [line for line in command.splitlines() if line.startswith("````")]
    assert fences == ["````", "````"] and command.rstrip().endswith("````")


@pytest.fixture
def whole(run, tmp_path):
    """The run with a checkpoint and its data in the cache, ready to be shared."""
    checkpoint = run.stage_checkpoint(1200)
    (checkpoint / "config.json").write_text('{"model_type": "spectra_moe"}')
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "optimizer.pt"):
        (checkpoint / name).write_bytes(name.encode())
    (checkpoint / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    run.commit_checkpoint(checkpoint, 1200)

    def build(folder: Path) -> dict:
        train_bpe(["some text"], 300).save(str(folder / "tokenizer.json"))
        return {"eos_token": "<|endoftext|>"}

    cached_folder(tmp_path / "cache", "0" * 32, build)
    return run


def test_weights_in_several_files_are_all_shared(whole, tmp_path):
    shared = share(whole, tmp_path / "new", tmp_path)
    assert {path.name for path in shared.iterdir()} == {
        "README.md",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it holds no settings"),
        ("trainer: 5", "it has no seed"),
        ("[1, 2]", "it holds no settings"),
        ("{router: switch}", "it has no seed"),
        ("{seed: 0, router: {name: a}, model: {num_experts: 1, top_k: 1}}", "it has no "),
        ("{", "not a run's configuration"),
        ("!!python/object/apply:os.system [echo]", "not a run's configuration"),
    ],
)
def test_an_odd_configuration_is_one_line_and_leaves_nothing(content, message, whole, tmp_path, capsys):
    assert main([whole.run_id, str(tmp_path / "good"), f"outputs={tmp_path}"]) == 0
    capsys.readouterr()
    whole.config.write_text(content)
    assert main([whole.run_id, str(tmp_path / "new"), f"outputs={tmp_path}"]) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (tmp_path / "new").exists()


@pytest.mark.parametrize("fingerprint", ["../../elsewhere", "/etc", "", "0" * 31 + "/", None])
def test_a_tokenizer_comes_from_the_cache_alone(fingerprint, whole, tmp_path):
    shutil.copytree(tmp_path / "cache" / ("0" * 32), tmp_path.parent / "elsewhere", dirs_exist_ok=True)
    whole.summary.write_text(json.dumps(SUMMARY | {"fingerprints": {"data": fingerprint}}))
    with pytest.raises(SpectraError, match="fingerprint of the data, .* is not one"):
        share(whole, tmp_path / "new", tmp_path)
    assert not (tmp_path / "new").exists()


def test_no_code_is_shared(run, tmp_path):
    named = tmp_path / "named"
    checkpoint = run.stage_checkpoint(1200)
    auto_map = {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    config = {"model_type": "spectra_moe", "backbone": {"model_type": "llama"} | auto_map} | auto_map
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "evil.py").write_text("")
    (checkpoint / "model.safetensors").write_bytes(b"")
    run.commit_checkpoint(checkpoint, 1200)
    named.mkdir()
    train_bpe(["some text"], 300).save(str(named / "tokenizer.json"))
    (named / "tokenizer_config.json").write_text(json.dumps({"eos_token": "é"} | auto_map))
    (named / "evil.py").write_text("")
    run.config.write_text(yaml.safe_dump(CONFIG | {"data": CONFIG["data"] | {"tokenizer": str(named)}}))
    shared = share(run, tmp_path / "new", tmp_path)
    assert json.loads((shared / "config.json").read_text()) == {
        "model_type": "spectra_moe",
        "backbone": {"model_type": "llama"},
    }
    assert json.loads((shared / "tokenizer_config.json").read_text()) == {"eos_token": "é"}
    assert (shared / "tokenizer.json").read_bytes() == (named / "tokenizer.json").read_bytes()
    assert not list(shared.glob("*.py"))
