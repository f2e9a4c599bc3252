"""Models that somebody else saved, tiny and random, in the hub's layout: what `model.source` names. Random order."""

from __future__ import annotations

import gc
import json
import os
import random
from pathlib import Path

import pytest

VOCABULARY = 512


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With a seed in SPECTRA_TEST_ORDER: the files in a random order, and the tests of each."""
    if seed := os.environ.get("SPECTRA_TEST_ORDER"):
        rng = random.Random(seed)
        places = {path: rng.random() for path in sorted({item.path for item in items})}
        items.sort(key=lambda item: (places[item.path], rng.random()))


def pytest_collection_finish() -> None:
    """What the imports and the collection left stays to the end: looking through it for garbage again is a waste."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `llama`, `gpt2`, `mixtral` and `smolvlm`, each with weights and a tokenizer of 512 tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from spectra_exp.data.tokenizer import train_bpe

    folder = tmp_path_factory.mktemp("sources")
    words = [f"{a}{b} {b}{a}{b}, {b}." for a in ("the", "quick", "brown", "fox") for b in ("over", "lazy", "dogs")]
    tokenizer = train_bpe(words, VOCABULARY)
    llama = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8)
    made = {
        "llama": AutoConfig.for_model("llama", **llama),
        "gpt2": AutoConfig.for_model("gpt2", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=128),
        "mixtral": AutoConfig.for_model("mixtral", **llama, num_local_experts=4, num_experts_per_tok=2),
        "smolvlm": AutoConfig.for_model(
            "smolvlm",
            text_config=llama | {"model_type": "llama"},
            vision_config=vision,
            image_token_id=511,
        ),
    }
    for name, config in made.items():
        torch.manual_seed(0)
        auto = AutoModelForImageTextToText if name == "smolvlm" else AutoModelForCausalLM
        auto.from_config(config).save_pretrained(folder / name)
        tokenizer.save(str(folder / name / "tokenizer.json"))
        (folder / name / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder
