"""How a run's experts are computed, on GPUs and with packages that are made up here."""

from __future__ import annotations

import importlib.util
import re
import shutil

import pytest
import torch
from moe_cases import ids_of, model_of

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.moe import experts_kernel
from spectra_exp.moe.experts import PLAIN, TRITON, Experts
from spectra_exp.moe.experts_kernel import choose_experts_kernel, use_experts_kernel, what_experts_lack
from spectra_exp.moe.schema import ExpertsKernelRequest

ON_A_GPU = ExpertsKernelRequest("auto", "cuda")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Makes torch see a GPU of a capability, with triton installed or not, and a compiler and headers or none."""

    def make(
        installed: bool = True, capability: tuple[int, int] = (9, 0), compiler: bool = True, headers: bool = True
    ) -> None:
        find = importlib.util.find_spec
        found = lambda name, *of: installed or None if name == "triton" else find(name, *of)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", found)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if compiler and name == "clang" else None)
        if headers:
            (tmp_path / "Python.h").touch()
        monkeypatch.setattr(experts_kernel, "include_folder", lambda: tmp_path)

    return make


@pytest.mark.parametrize(
    "planted, sizes, options, reason",
    [
        ({"installed": False}, (16, 32), {}, "triton is not installed"),
        ({"capability": (7, 5)}, (16, 32), {}, "T4 is older"),
        ({"compiler": False}, (16, 32), {}, "it needs a C compiler (gcc or clang, or the one that CC names)"),
        ({"headers": False}, (16, 32), {}, "it needs Python's headers"),
        ({}, (16, 40), {}, "a size of 40 is no multiple of 16"),
        ({}, (16, 32), {"activation": "tanh"}, "no activation 'tanh'"),
        ({}, (16, 32), {"biases": ["up_bias"]}, "the experts have biases"),
    ],
)
def test_triton_where_it_can_work_and_refused_when_asked_for(planted, sizes, options, reason, gpu):
    gpu(**planted)
    options = {"gated": True, "activation": "silu", "std": 0.1} | options
    lacks = [what_experts_lack(Experts(2, *sizes, **options))]
    found = choose_experts_kernel(ON_A_GPU, lacks)
    assert found.name == PLAIN and reason in found.reason
    with pytest.raises(ConfigError, match=re.escape(reason)):
        choose_experts_kernel(ExpertsKernelRequest(TRITON, "cuda"), lacks)
    gpu()
    good = [what_experts_lack(Experts(2, 16, 32, True, "silu", 0.1))]
    assert choose_experts_kernel(ON_A_GPU, good).name == TRITON
    assert choose_experts_kernel(ExpertsKernelRequest(PLAIN, "cuda"), good).name == PLAIN


def test_the_choice_reaches_every_expert_and_the_cpu_stays_plain(gpu):
    model = model_of("switch", top_k=2, expert_size=32)
    layers = [module for module in model.modules() if isinstance(module, Experts)]
    assert use_experts_kernel(model, ExpertsKernelRequest("auto", "cpu")).reason == "no triton: it needs a GPU"
    assert {layer.kernel for layer in layers} == {PLAIN} and model(input_ids=ids_of()).logits.isfinite().all()
    gpu()
    assert use_experts_kernel(model, ON_A_GPU).name == TRITON and {layer.kernel for layer in layers} == {TRITON}
    model = model_of("output_orthogonality", top_k=2, expert_size=32)
    assert "loss of the experts' outputs" in use_experts_kernel(model, ON_A_GPU).reason


def test_what_cannot_work_is_said_before_anything_starts():
    prepare_environment()
    with pytest.raises(ConfigError, match="model.experts_kernel.*needs a GPU"):
        load_experiment(["model.experts_kernel=triton", "trainer.device=cpu"])
