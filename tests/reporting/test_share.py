"""What a shared run's folder holds, and when there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.reporting.model_card import model_card
from spectra_exp.reporting.share import find_run, main, share

CONFIG = {
    "seed": 3,
    "outputs": "outputs",
    "router": {"name": "switch"},
    "model": {"num_experts": 8, "top_k": 2, "source": "someone/model"},
    "data": {"name": "embedded", "tokenizer": None},
    "trainer": {"max_steps": 1200, "cpu_threads": 1, "evaluation_batch_size": 32, "precision": "float32"},
}
SUMMARY = {
    "schema": 1, "run_id": "switch-s0-01234567", "cell_id": "c", "name": "n", "label": "switch top2",
    "router": "switch", "osr": "none", "selection": "topk", "temperature": "t1_0", "baseline": "none",
    "ablation": "none", "model": "upcycle", "data": "embedded", "status": "completed", "seed": 3, "steps": 1200,
    "causal": True,
    "parameters": {"total": 1234567, "active": 234567}, "flops_per_token": 4.5e6, "unigram_loss": 5.25,
    "metrics": {"val_loss": 3.875, "val_perplexity": 48.2, "load_cv": 0.0625}, "metrics_training_rule": {},
    "floors": {"load_cv": 0.03125}, "fingerprints": {"data": "0" * 32},
    "command": "python train.py model=upcycle data.train=/home/me/secret/train.jsonl seed=3",
}  # fmt: skip


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
        "| val_loss | 3.875 | 5.25 | lower |", "| load_cv | 0.0625 | 0.03125 | lower |", "import spectra_exp",
        "1,234,567, of which 234,567 active", "causal (measured): yes", "data.train=train.jsonl seed=3",
    ):  # fmt: skip
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
    assert code.strip().startswith("````\npython ```") and code.strip().endswith("\n````")


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
    assert main([run.run_id, str(tmp_path / "new"), "--outputs", str(tmp_path)]) == 1
    assert "tokenised data is no longer in the cache" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    with pytest.raises(SpectraError, match="taken is there already"):
        share(run, tmp_path / "taken", tmp_path)
    run.summary.write_text(json.dumps(SUMMARY | {"status": "failed"}))
    with pytest.raises(SpectraError, match="failed; only a completed run"):
        share(run, tmp_path / "new", tmp_path)
    assert not list(tmp_path.glob("*new*")) + list(tmp_path.glob(".*new*"))
