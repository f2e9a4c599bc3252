"""Which attention a run computes with, on GPUs and with packages that are made up here."""

from __future__ import annotations

import pytest
import torch
from moe_cases import ids_of, model_of
from transformers import LlamaConfig

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe import attention as module
from spectra_exp.moe.attention import FLASH, choose_attention, use_attention
from spectra_exp.moe.source import source_config

BF16 = "trainer.precision=bf16"


@pytest.fixture
def gpu(monkeypatch):
    """Makes torch see a GPU of a capability, with flash-attn installed or not."""
    prepare_environment()

    def make(installed: bool = True, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(module, "is_flash_attn_2_available", lambda: installed)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")

    return make


def chosen(*overrides: str, backbone=None, device: str = "cuda"):
    backbone = backbone or LlamaConfig(hidden_size=128, num_attention_heads=4)
    return choose_attention(load_experiment(list(overrides)).attention_request(device), backbone)


def test_flash_where_it_can_work(gpu):
    gpu()
    assert chosen(BF16).name == FLASH
    assert chosen(BF16, f"model.attention={FLASH}").reason == "asked for"
    assert chosen(BF16, "model.attention=sdpa").name == "sdpa"


@pytest.mark.parametrize(
    "planted, overrides, backbone, device, reason",
    [
        ({"installed": False}, [BF16], None, "cuda", "not installed"),
        ({"capability": (7, 5)}, [BF16], None, "cuda", "T4 is older"),
        ({}, [], None, "cuda", "computes in 16 bits"),
        ({}, [BF16, "data.cross_document=false"], None, "cuda", "keeps packed documents apart"),
        ({}, [BF16], LlamaConfig(hidden_size=60, num_attention_heads=5), "cuda", "heads of width 12"),
        ({}, [BF16], LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=320), "cuda", "heads of width 320"),
        ({}, [BF16], None, "cpu", "needs a GPU"),
    ],
)
def test_sdpa_where_it_cannot_and_refused_when_asked_for(planted, overrides, backbone, device, reason, gpu):
    gpu(**planted)
    found = chosen(*overrides, backbone=backbone, device=device)
    assert found.name == "sdpa" and reason in found.reason
    experiment = load_experiment(overrides)
    experiment.model.attention = FLASH
    with pytest.raises(ConfigError, match=rf"model.attention: '{FLASH}' cannot work here: .*{reason}"):
        choose_attention(
            experiment.attention_request(device), backbone or LlamaConfig(hidden_size=128, num_attention_heads=4)
        )


def test_a_family_without_it(gpu, sources, monkeypatch):
    gpu()
    config = source_config(sources / "gpt2")
    assert chosen(BF16, backbone=config).name == FLASH
    monkeypatch.setattr(module.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_supports_flash_attn", False)
    assert chosen(BF16, backbone=config).reason.endswith("the family gpt2 does not have it")


@pytest.mark.parametrize(
    "overrides, told",
    [
        ([f"model.attention={FLASH}"], "it needs a GPU; give auto"),
        (["model.attention=eager", "data.cross_document=false"], "does not keep packed documents apart"),
        (["model.attention=flash"], "valid: auto, flash_attention_2, sdpa, eager"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(overrides, told, monkeypatch):
    prepare_environment()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=told):
        load_experiment(overrides)


def test_a_source_is_asked_too(sources, gpu):
    gpu(installed=False)
    with pytest.raises(ConfigError, match="flash-attn .* is not installed"):
        load_experiment(["model=upcycle", f"model.source={sources / 'llama'}", f"model.attention={FLASH}"])


@torch.no_grad()
def test_the_backbone_computes_with_it():
    prepare_environment()
    ids = ids_of()
    logits = []
    for name in ("sdpa", "eager"):
        model = model_of("switch").eval()
        assert use_attention(model, load_experiment([f"model.attention={name}"]).attention_request("cpu")).name == name
        assert model.backbone.model.layers[0].self_attn.config._attn_implementation == name
        logits.append(model(input_ids=ids).logits)
    torch.testing.assert_close(*logits)
