"""`spectra-exp doctor`: what it writes, its exit status, and wrong input in one line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from doctor_cases import batches, stock
from made_subjects import made_documents, made_tokenizer
from moe_cases import ROUTED, model_of, settled
from transformers import LlamaConfig, LlamaForCausalLM, T5Config

from spectra_exp.doctor import doctor
from spectra_exp.doctor.command import main
from spectra_exp.doctor.opening import open_model
from spectra_exp.doctor.registry import Outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Mixtral with a tokenizer."""
    path = tmp_path_factory.mktemp("models") / "mixtral"
    stock("mixtral", vocab_size=400).save_pretrained(path)
    made_tokenizer().save(str(path / "tokenizer.json"))
    return path


def test_a_fault_is_written_down_and_is_exit_status_1(folder: Path, tmp_path: Path, capsys) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": document.text}) for document in made_documents(2)))
    words = [f"model={folder}", f"texts={texts}", f"outputs={tmp_path}", "device=cpu"]
    assert main([*words, "checks=auxiliary_on,twice"]) == 1
    out = capsys.readouterr().out
    assert "1 ok, 1 fault" in out and "output_router_logits" in out
    made = tmp_path / "doctor" / "mixtral"
    told = json.loads((made / "findings.json").read_text())
    found = {one["check"]: one for one in told["findings"]}
    assert found["auxiliary_on"]["status"] == "fault" and found["twice"]["figure"] <= found["twice"]["limit"]
    page = (made / "index.html").read_text()
    assert "Auxiliary loss: on" in page and "What it means" in page and "<script src" not in page
    assert (
        told["made_with"]["torch"] == torch.__version__
        and told["made_with"]["transformers"] == transformers.__version__
    )
    assert told["made_with"]["spectra-exp"] and {"seed of the checks", "seed of the text"} <= told["made_with"].keys()
    assert found["twice"]["ok_if"] == "at most 0.0001"
    assert "at most 0.0001" in page and "seed of the checks" in page
    assert all(f"torch {torch.__version__}" in text.replace("</dt><dd>", " ") for text in (out, page))
    assert main([*words, "checks=twice"]) == 0


def test_without_a_tokenizer_random_ids_are_used_and_said(folder: Path, tmp_path: Path, capsys) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "model.safetensors"):
        (bare / file).write_bytes((folder / file).read_bytes())
    assert main([f"model={bare}", f"outputs={tmp_path}", "checks=twice", "tokens=64"]) == 0
    assert "random token ids" in capsys.readouterr().out
    assert main([f"model={bare}", f"outputs={tmp_path}", "texts=a.txt"]) == 2
    assert "texts: " in capsys.readouterr().err


def test_wrong_input_is_one_line(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    dense = LlamaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    LlamaForCausalLM(dense).save_pretrained(tmp_path / "dense")
    T5Config().save_pretrained(tmp_path / "encoder")
    (tmp_path / "code").mkdir()
    remote = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Model"}}
    (tmp_path / "code" / "config.json").write_text(json.dumps(remote))
    (tmp_path / "code" / "mine.py").write_text("raise SystemExit('was run')")
    (tmp_path / "code" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "encoder" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    # What saving shows is not of interest.
    capsys.readouterr()
    wrong = {
        "is a dense model": [f"model={tmp_path / 'dense'}"],
        "has an encoder": [f"model={tmp_path / 'encoder'}"],
        "not a causal language model": [f"model={tmp_path / 'code'}"],
        "there is no folder": ["model=nothing"],
        "not in the local Hugging Face cache": ["model=nobody/nothing"],
        "either model=FOLDER or run=ID": [],
        "did you mean 'causality'": [f"model={folder}", "checks=causalty"],
        "holds no run": [f"run={folder}"],
    }
    for line, words in wrong.items():
        assert main([*words, f"outputs={tmp_path}"]) == 2
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1, err
    monkeypatch.setattr("spectra_exp.doctor.opening.free_bytes", lambda: 1000.0)
    monkeypatch.setattr("spectra_exp.interpret.open_stock.load_whole", None)
    assert main([f"model={folder}", f"outputs={tmp_path}", "device=cpu"]) == 2
    assert "does not fit" in capsys.readouterr().err


def test_a_folder_of_texts_is_read_and_an_impossible_out_is_one_line(folder: Path, tmp_path: Path, capsys) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        lines = [json.dumps({"text": f"{name} {document.text}"}) for document in made_documents(2)]
        (texts / name).write_text("\n".join(lines))
    words = [f"model={folder}", f"texts={texts}", "checks=twice", "device=cpu"]
    assert main([*words, f"out={tmp_path / 'made'}"]) == 0
    capsys.readouterr()
    assert main([*words, f"out={texts / 'train.jsonl'}"]) == 2
    assert "error: out: " in capsys.readouterr().err


def test_a_short_text_is_cut_into_two_sequences(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("zebra horse tiger eagle whale " * 6)
    opened = open_model(str(folder), str(tmp_path / "short.txt"), None, 0, stock("mixtral").device)
    assert opened.batches[0].shape[0] >= 2


# Of routers whose finding is not ok: BIP's bias is the prices of the last pass by its own algorithm.
OWN = {"bip": {"bias_steps": "fault"}, "rmoe": {"tied": "doubtful"}}


USUAL = ("spectra", "switch", "bip", "loss_free")


@pytest.mark.parametrize("router", [pytest.param(r, marks=() if r in USUAL else pytest.mark.full) for r in ROUTED])
def test_the_routers_of_this_project_are_sound(router: str) -> None:
    report = doctor(settled(model_of(router)), batches())
    told = {f.check.name: f.outcome.status for f in report.findings if f.outcome.status in ("fault", "doubtful")}
    assert told == OWN.get(router, {}) and (router != "switch" or report.status("padding") == "ok")


def modes_of(model) -> Outcome:
    return doctor(model, batches(), checks=("modes",)).findings[0].outcome


def test_a_second_rule_is_no_fault_where_the_configuration_has_it(monkeypatch) -> None:
    spectra, chosen, jittered = (settled(model_of(name)) for name in ("spectra", "expert_choice", "switch"))
    assert "osr.sinkhorn_inference=false" in modes_of(spectra).note and "osr.training=plan" in modes_of(spectra).note
    assert "selection.rule=expert_choice in training, topk in evaluation" in modes_of(chosen).note
    assert "moe.router.jitter=0.01" in modes_of(jittered).note and jittered.routed_layers[0].router.config.jitter
    for router in {type(model.routed_layers[0].router) for model in (spectra, chosen)}:
        monkeypatch.setattr(router, "two_rules", "")
    assert modes_of(spectra).status == "fault"
    for model in (chosen, jittered):
        model.routed_layers[0].register_forward_pre_hook(lambda m, given: (given[0] * (1.3 if m.training else 1.0),))
        assert modes_of(model).status == "fault"


def test_an_error_of_recomputation_is_a_fault() -> None:
    model, generator = settled(model_of("switch")), torch.Generator().manual_seed(0)

    def noise(layer, given):
        return (given[0] + layer.training * torch.randn(given[0].shape, generator=generator), *given[1:])

    model.routed_layers[0].register_forward_pre_hook(noise)
    outcome = doctor(model, batches(), checks=("recomputation",)).findings[0].outcome
    assert outcome.status == "fault" and "the recomputed pass is another" in outcome.note


def test_files_too_large_for_memory_are_one_line(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(400 * 10**9)
    assert main([f"model={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model: ")
