"""Configurations that start from somebody else's model: what they take from it, what is refused, which run it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields

import pytest
from config_cases import identity
from safetensors.torch import save_file

from spectra_exp.config.compose import load_experiment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe import families
from spectra_exp.moe import source as source_module
from spectra_exp.moe.schema import ModelConfig


def load(*typed: str):
    return load_experiment(list(typed))


def of(sources, name: str, *typed: str):
    kind = "reroute" if name == "mixtral" else "upcycle"
    return load(f"model={kind}", f"model.source={sources}/{name}", "data.sequence_length=64", *typed)


def test_a_rerouted_model_takes_experts_and_k_from_the_source(sources):
    x = of(sources, "mixtral")
    assert (x.model.num_experts, x.model.top_k) == (4, 2)
    assert of(sources, "mixtral", "model.top_k=3").model.top_k == 3
    with pytest.raises(ConfigError, match="model.num_experts: 8 was given, but the source has 4 experts"):
        of(sources, "mixtral", "model.num_experts=8")


def test_what_is_trained_already_is_moved_gently(sources):
    for name in ("llama", "mixtral"):
        optim = of(sources, name).optim
        assert (optim.router_learning_rate, optim.expert_learning_rate, optim.learning_rate) == (5e-5, 1e-5, 1e-5)
    assert of(sources, "llama", "optim.learning_rate=0.01").optim.learning_rate == 0.01


def test_the_source_s_tokenizer_reads_the_data(sources, tmp_path):
    assert of(sources, "llama").data.tokenizer == str((sources / "llama").resolve())
    with pytest.raises(ConfigError, match="data.tokenizer: 'source' was given, but the model has no source"):
        load("data.tokenizer=source")
    shutil.copytree(sources / "llama", tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="bare has no tokenizer.json; give data.tokenizer=PATH"):
        of(tmp_path, "bare")


def test_the_run_is_that_of_the_source_s_content_wherever_it_lies(sources, tmp_path):
    shutil.copytree(sources / "llama", tmp_path / "moved")
    here, there = identity(of(sources, "llama")), identity(of(tmp_path, "moved"))
    assert here.run_id == there.run_id and "e8k2-upcycle" in here.run_id
    weights = tmp_path / "moved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert identity(of(tmp_path, "moved")).run_id != here.run_id
    assert identity(of(sources, "llama", "model.upcycle_noise=0")).run_id != here.run_id
    assert identity(of(sources, "llama", "model.download=true")).run_id == here.run_id


def test_runs_from_scratch_keep_their_ids():
    first = {f.name for f in fields(ModelConfig) if not f.metadata.get("later")}
    assert set(identity(load()).signature["model"]) == first
    assert "scratch" not in identity(load()).run_id


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model=upcycle", "no model was given; give model.source="),
        ("model=upcycle model.source={sources}/lama", "there is no folder .*did you mean 'llama'"),
        ("model=upcycle model.source=some/where/else", "there is no folder some/where/else"),
        ("model=upcycle model.source={sources}/llama/config.json", "config.json is a file; give the folder .*/llama?"),
        ("model=upcycle model.source={sources}/llama/model.safetensors", "model.safetensors is a file"),
        ("model=upcycle model.source={sources}/llama model.revision=main", "model.revision: main of a folder would"),
        ("model=upcycle model.source=gpt2", "there is no folder gpt2; give a folder .* or OWNER/NAME"),
        ("model=upcycle model.source={sources}/mixtral", "sparse model already; give model=reroute"),
        ("model=reroute model.source={sources}/llama", "'llama' is a dense model; give model=upcycle"),
        ("router=native", "'native' is the router of a sparse source"),
        ("model=upcycle model.source={sources}/llama router=native", "'native' is the router of a sparse source"),
        ("model=reroute model.source={sources}/mixtral router=native model.top_k=1", "takes 2; drop it"),
        ("model=reroute model.source={sources}/mixtral router=native temperature=t2_0", "router=native decides"),
        ("model=reroute model.source={sources}/mixtral router=native router.shared=true", "router=native decides"),
        (
            "model=reroute model.source={sources}/mixtral router=remoe model.renormalize=true",
            "model.renormalize: True would have no effect with router=remoe",
        ),
        ("model=reroute model.source={sources}/mixtral baseline=dense", "'dense' has no router to put into"),
        ("model=upcycle model.source={sources}/llama router=hash model.freeze=all_but_router", "nothing would be"),
        ("model=upcycle model.source={sources}/llama model.first_k_dense_replace=2", "leaves none of .* 2 layers"),
        ("model=upcycle model.source={sources}/llama data.sequence_length=256", "above the source's 128 positions"),
        ("model=upcycle model.source={sources}/llama model.hidden_size=64", "model.hidden_size: the chosen model"),
        ("model=upcycle model.source={sources}/llama model.num_expert=2", "did you mean 'model.num_experts'"),
        ("model=reroute model.source={sources}/mixtral model.keep_router_weights=false", "is not one linear map"),
        ("model=upcycle model.source={sources}/llama router=dense model.num_shared=1", "no effect with router=dense"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(typed, message, sources):
    with pytest.raises(ConfigError, match=message) as error:
        load(*typed.format(sources=sources).split())
    assert "\n" not in str(error.value)


def test_a_download_that_was_cut_off_is_refused_before_any_run(sources, tmp_path):
    shutil.copytree(sources / "llama", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ConfigError, match="model.safetensors is damaged or cut off"):
        of(tmp_path, "cut")


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (dict(model_type="bloom", n_head=2), "'bloom' names no activation .*add a row to DENSE_FAMILIES"),
        (
            dict(model_type="gpt_neo", num_heads=2, num_layers=2, attention_types=[[["global"], 2]]),
            "'gpt_neo' has no resid_pdrop.*add a row to DENSE_FAMILIES",
        ),
        (dict(model_type="mamba"), "no MLPs were found in the layers of model_type 'mamba'"),
    ],
)
def test_a_family_that_cannot_be_built_is_refused_before_any_run(family, message, tmp_path, monkeypatch):
    # As without its row: found by structure, and its dropout has another name.
    monkeypatch.delitem(families.DENSE_FAMILIES, "gpt_neo")
    shape = dict(vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    (tmp_path / "config.json").write_text(json.dumps(shape | family))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=message) as error:
        load("model=upcycle", f"model.source={tmp_path}")
    assert "\n" not in str(error.value)


def test_without_a_network_it_says_what_to_get_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="not in the local Hugging Face cache; give model.download=true") as error:
        load("model=upcycle", "model.source=someone/model", "model.revision=v1")
    assert "hf download someone/model --revision v1 --local-dir FOLDER" in str(error.value)
    # The client itself, at a port where nobody answers.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="could not be fetched .*hf download someone/model") as error:
        load("model=upcycle", "model.source=someone/model", "model.download=true")
    assert "\n" not in str(error.value)


def test_a_model_in_the_hub_s_cache_is_found_by_its_name(sources, monkeypatch, tmp_path):
    commit = "0" * 40
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(sources / "llama", repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    x = load("model=upcycle", "model.source=someone/model", "data.sequence_length=64")
    assert identity(x).run_id == identity(of(sources, "llama")).run_id


def test_pickled_weights_and_code_are_not_loaded(sources, tmp_path):
    shutil.copytree(sources / "llama", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="holds no .*safetensors; pickled weights are not loaded"):
        of(tmp_path, "pickled")
    shutil.copytree(sources / "llama", tmp_path / "coded")
    config = tmp_path / "coded" / "config.json"
    text = config.read_text().replace('"model_type": "llama"', '"model_type": "of_its_own"')
    config.write_text(text.replace("{", '{"auto_map": {"AutoConfig": "evil.Config"},', 1))
    (tmp_path / "coded" / "evil.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(ConfigError, match="config.json cannot be read"):
        of(tmp_path, "coded")


def test_documents_are_kept_apart_only_where_attention_allows(sources, monkeypatch):
    assert of(sources, "llama", "data.cross_document=false").data.cross_document is False
    monkeypatch.setattr("spectra_exp.moe.attention.keeps_documents_apart", lambda config: False)
    source_module._facts.cache_clear()
    with pytest.raises(ConfigError, match="data.cross_document: model_type 'llama' has attention"):
        of(sources, "llama", "data.cross_document=false")
    source_module._facts.cache_clear()


def test_the_reference_configuration_is_the_paper_s(sources):
    x = load("model=spectra_small", f"model.source={sources}/smolvlm", "data.sequence_length=128")
    assert (x.model.num_experts, x.model.top_k, x.model.num_shared, x.model.first_k_dense_replace) == (32, 4, 1, 0)
    assert x.router.name == "spectra" and x.router.dim == 32
    assert (x.optim.router_learning_rate, x.optim.expert_learning_rate, x.optim.learning_rate) == (5e-5, 1e-5, 1e-5)
    assert x.optim.clip_norm == 1.0 and x.trainer.precision == "bf16" and x.trainer.gradient_checkpointing
    other = load("model=spectra_small", f"model.source={sources}/smolvlm", "baseline=switch_top2", "model.top_k=2")
    assert other.router.name == "switch"
    with pytest.raises(ConfigError, match="HuggingFaceTB/SmolVLM-256M-Instruct"):
        load("model=spectra_small")
