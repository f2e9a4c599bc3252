"""Whose loops `model.routing_kernel` reaches, and what is said where it cannot."""

from __future__ import annotations

import sys

import pytest
import torch
from moe_cases import model_of

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.kernels import PLAIN, TRITON
from spectra_exp.moe import routing_kernel
from spectra_exp.moe.routing_kernel import use_routing_kernel
from spectra_exp.runs.identity import identify


@pytest.mark.parametrize("router", ["spectra", "sinkhorn", "beta_memory", "causal_bias"])
def test_the_kernel_reaches_every_loop_and_plain_brings_it_back(router, monkeypatch):
    monkeypatch.setattr(routing_kernel, "what_triton_lacks", lambda device: None)
    model = model_of(router, top_k=2)
    parts = [part for layer in model.routed_layers for part in layer.router.modules() if hasattr(part, "kernel")]
    # SPECTRA has Sinkhorn in the router and the scan in its encoder.
    assert len(parts) == len(model.routed_layers) * (2 if router == "spectra" else 1)
    for kernel in (TRITON, PLAIN):
        use_routing_kernel(model, kernel, "cuda")
        assert {part.kernel for part in parts} == {kernel}


@pytest.mark.parametrize("router", ["spectra", "sinkhorn", "beta_memory", "causal_bias"])
def test_the_loops_ask_for_the_kernel(router, monkeypatch):
    """Without triton its import fails, and with it there is no device: a loop that stays plain would pass."""
    monkeypatch.setattr(routing_kernel, "what_triton_lacks", lambda device: None)
    model = model_of(router, top_k=2)
    use_routing_kernel(model, TRITON, "cuda")
    for name in ("column_scaling", "linear_recurrence"):
        monkeypatch.setitem(sys.modules, f"spectra_exp.routing.fused.{name}", None)
    with pytest.raises(ImportError, match="routing.fused"):
        model.train()(input_ids=torch.arange(12).view(2, 6))


def test_what_cannot_work_is_said_in_one_line(monkeypatch):
    prepare_environment()
    with pytest.raises(ConfigError, match="model.routing_kernel.*needs a GPU"):
        load_experiment(["model.routing_kernel=triton", "trainer.device=cpu"])
    monkeypatch.setattr(routing_kernel, "what_triton_lacks", lambda device: None)
    with pytest.raises(ConfigError, match="neither a scan nor Sinkhorn"):
        use_routing_kernel(model_of("switch", top_k=2), TRITON, "cuda")


@pytest.mark.parametrize(
    ("router", "settings"),
    [
        ("spectra", {"router": {"sequence": "gru"}, "osr": {"solver": "softmax"}}),
        ("spectra", {"router": {"sequence": "gru"}, "osr": {"log_sinkhorn_enabled": False}}),
        ("beta_memory", {"router": {"recurrent": False}}),
    ],
)
def test_a_router_whose_loop_is_off_has_none(router, settings, monkeypatch):
    monkeypatch.setattr(routing_kernel, "what_triton_lacks", lambda device: None)
    model = model_of(router, **settings)
    with pytest.raises(ConfigError, match="neither a scan nor Sinkhorn iterations in the log domain"):
        use_routing_kernel(model, TRITON, "cuda")


def test_auto_takes_the_kernel_where_there_is_a_loop_and_triton_works(monkeypatch):
    looped, linear = model_of("spectra", top_k=2), model_of("switch", top_k=2)
    for model, lack, kernel, reason in (
        (looped, None, TRITON, "it is installed"),
        (looped, "it needs a GPU", PLAIN, "no triton: it needs a GPU"),
        (linear, None, PLAIN, "no triton: the router has neither"),
    ):
        monkeypatch.setattr(routing_kernel, "what_triton_lacks", lambda device, lack=lack: lack)
        chosen = use_routing_kernel(model, "auto", "cuda")
        assert chosen.name == kernel and chosen.reason.startswith(reason)
        assert looped is not model or model.routed_layers[0].router.kernel == kernel


def test_a_run_that_names_its_way_is_another_and_auto_leaves_the_id_as_it_was(monkeypatch):
    prepare_environment()
    monkeypatch.setattr(routing_kernel, "what_triton_lacks", lambda device: None)
    usual, auto, plain, fused = (
        identify(load_experiment(asked), "f" * 16, "cuda")
        for asked in ([], *([f"model.routing_kernel={name}"] for name in ("auto", "plain", "triton")))
    )
    assert usual.run_id == auto.run_id
    assert len({usual.run_id, plain.run_id, fused.run_id}) == 3
    assert "routing_kernel" not in usual.signature["model"]
