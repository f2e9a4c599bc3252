"""What a source brings besides its MLPs stays as it is: a head of its own, and how it ends and samples a text."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from family_cases import family_model, ids_of, reloaded
from moe_cases import settings_of
from safetensors.torch import load_file, save_file
from test_upcycle import idefics3
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe.reroute import reroute
from spectra_exp.moe.source import load_source
from spectra_exp.moe.upcycle import upcycle

HEAD = "lm_head.weight"


def with_its_own_head(folder: Path, model_type: str) -> Path:
    """A saved model whose config.json says that its head is the embedding, and whose file holds another head."""
    if model_type == "idefics3":
        idefics3(tied=True).save_pretrained(folder)
    else:
        model = copy.deepcopy(family_model(model_type))
        model.config.tie_word_embeddings = True
        model.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    (embedding,) = (name for name in tensors if name.endswith("embed_tokens.weight"))
    tensors[HEAD] = tensors[embedding].flip(0).contiguous()
    save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.mark.parametrize("model_type", ["llama", "gemma", "mixtral", "idefics3"])
@torch.no_grad()
def test_a_head_that_the_source_keeps_apart_stays_apart(model_type, tmp_path):
    folder = with_its_own_head(tmp_path / "source", model_type)
    auto = AutoModelForImageTextToText if model_type == "idefics3" else AutoModelForCausalLM
    whole = auto.from_pretrained(folder).eval()
    ids = ids_of() % 59
    expected = whole(input_ids=ids, use_cache=False).logits
    assert not torch.equal(whole.get_output_embeddings().weight, whole.get_input_embeddings().weight)
    source = load_source(folder)
    if model_type == "mixtral":
        model = reroute(source, settings_of("switch", top_k=2), 0, None, True).eval()
    else:
        model = upcycle(source, settings_of("switch"), 0, 0.0).eval()
    for mine in (model, reloaded(model, tmp_path / "ours")):
        assert (mine(input_ids=ids, use_cache=False).logits - expected).abs().max() < 1e-5
        assert mine.get_output_embeddings().weight is not mine.get_input_embeddings().weight


def test_weights_that_would_be_lost_in_the_copy_are_refused(tmp_path, monkeypatch):
    # As before the head's own weights were looked at.
    monkeypatch.setattr("spectra_exp.moe.source._is_tied", lambda model: True)
    source = load_source(with_its_own_head(tmp_path, "llama"))
    with pytest.raises(ConfigError, match=r"^model.source: .* cannot be kept apart from another weight"):
        upcycle(source, settings_of("switch"), 0, 0.0)


# The second is one that transformers would not write as its own: a temperature without sampling.
@pytest.mark.parametrize("said", [{"do_sample": True, "top_p": 0.8}, {"temperature": 0.6}], ids=["sampled", "odd"])
@pytest.mark.parametrize("model_type", ["llama", "mixtral", "idefics3"])
def test_how_the_source_ends_and_samples_a_text_is_kept(model_type, said, tmp_path):
    folder = with_its_own_head(tmp_path / "source", model_type)
    (folder / "generation_config.json").write_text(json.dumps(said | {"eos_token_id": [7, 9]}))
    source = load_source(folder)
    made = (
        reroute(source, settings_of("switch", top_k=2), 0, None, True)
        if model_type == "mixtral"
        else upcycle(source, settings_of("switch"), 0, 0.0)
    )
    loaded = reloaded(made, tmp_path / "ours")
    assert loaded.generation_config.eos_token_id == [7, 9]
    assert all(getattr(loaded.generation_config, name) == value for name, value in said.items())
