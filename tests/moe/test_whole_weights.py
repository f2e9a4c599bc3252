"""Somebody else's weights are used whole or not at all: nothing is filled in at random under their name."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from family_cases import family_model
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.interpret.open_stock import open_stock
from spectra_exp.moe.source import load_source
from spectra_exp.moe.whole_weights import check_weight_files

ONE = "model.layers.0.mlp.down_proj.weight"


def saved(folder: Path, family: str = "llama", change=None, **config) -> Path:
    """A saved model whose tensors were changed by `change`, and whose config.json says otherwise."""
    family_model(family).save_pretrained(folder)
    file, said = folder / "model.safetensors", folder / "config.json"
    if change is not None:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})
    said.write_text(json.dumps(json.loads(said.read_text()) | config))
    return folder


@pytest.mark.parametrize(
    ("family", "change", "config", "message"),
    [
        ("llama", lambda t: t.pop(ONE), {}, f"its weights lack {ONE};"),
        ("llama", None, dict(num_hidden_layers=3), r"lack model.layers.2.input_layernorm.weight and \d+ more"),
        ("llama", None, dict(intermediate_size=32), r"down_proj.weight is \[16, 24\] and should be \[16, 32\]"),
        ("llama", lambda t: t[ONE].__setitem__((0, 0), torch.nan), {}, f"{ONE} holds values that are not finite"),
        ("llama", lambda t: t[ONE].__setitem__((0, 0), torch.inf), {}, f"{ONE} holds values that are not finite"),
        (
            "mixtral",
            lambda t: t.pop("model.layers.0.block_sparse_moe.experts.0.w2.weight"),
            {},
            r"experts.down_proj is \[3, .* and should be \[4, ",
        ),
    ],
)
def test_weights_that_are_not_all_there_are_refused(family, change, config, message, tmp_path, capfd):
    folder = saved(tmp_path, family, change, **config)
    before = transformers_logging.get_verbosity()
    with pytest.raises(ConfigError, match=message) as error:
        load_source(folder)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"model.source: {folder}: ")
    assert "LOAD REPORT" not in capfd.readouterr().err and transformers_logging.get_verbosity() == before


def test_weights_that_are_whole_are_loaded_and_what_has_no_place_is_said(tmp_path, caplog):
    whole = load_source(saved(tmp_path / "whole"))
    assert all(torch.equal(t, family_model("llama").state_dict()[name]) for name, t in whole.state_dict().items())
    with caplog.at_level(logging.WARNING):
        load_source(saved(tmp_path / "fewer", num_hidden_layers=1))
    assert "has no place for model.layers.1.input_layernorm.weight and 15 more; left out" in caplog.text


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def half_an_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def dangling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../blobs/never-came")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, "model.safetensors is damaged or cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is damaged or cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 999), "model.safetensors is damaged or cut"),
        (half_an_index, "model-00002-of-00002.safetensors is not there"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("[]"), "is no index of weights"),
        (dangling, "model.safetensors is not there"),
        (lambda folder: (folder / "model.safetensors").unlink(), "pickled weights are not loaded"),
    ],
)
def test_files_that_are_damaged_are_refused_before_any_run(harm, message, tmp_path):
    check_weight_files("model.source", saved(tmp_path))
    harm(tmp_path)
    with pytest.raises(ConfigError, match=f"^model.source: .*{message}.*; ") as error:
        check_weight_files("model.source", tmp_path)
    assert "\n" not in str(error.value)


def test_a_stock_model_that_is_looked_at_is_whole_too(sources, tmp_path):
    folder = saved(tmp_path, "mixtral", num_hidden_layers=3)
    (folder / "tokenizer.json").write_bytes((sources / "mixtral" / "tokenizer.json").read_bytes())
    with pytest.raises(ConfigError, match=f"^run: {folder}: its weights lack model.layers.2") as error:
        open_stock("run", folder, 64, None, 0, torch.device("cpu"))
    assert "\n" not in str(error.value)
