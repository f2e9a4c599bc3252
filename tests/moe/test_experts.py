"""Letters: N tokens, E experts, d hidden size, f expert width."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectra_exp.moe.dispatch import sorted_on_device
from spectra_exp.moe.experts import DenseMlp, Experts
from spectra_exp.routing.selection import select_topk

EXPERTS, HIDDEN, WIDTH, TOKENS = 4, 8, 12, 15


def _case(gated: bool, activation: str, biases: tuple[str, ...] = ()):
    torch.manual_seed(0)
    experts = Experts(EXPERTS, HIDDEN, WIDTH, gated, activation, 0.5, biases)
    experts.reset_parameters()
    for name in biases:
        nn.init.normal_(getattr(experts, name))
    tokens_Nd = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    chosen_NE = torch.rand(TOKENS, EXPERTS) < 0.4
    chosen_NE[0], chosen_NE[:, 3] = False, False  # a token without an expert, an expert without a token
    weights_NE = (torch.rand(TOKENS, EXPERTS) * chosen_NE).requires_grad_()
    return experts, tokens_Nd, chosen_NE, weights_NE


def _loop(experts: Experts, tokens_Nd, chosen_NE, weights_NE):
    """One token and one expert at a time."""
    act = experts.activation
    rows, sums = [], [torch.zeros(HIDDEN) for _ in range(EXPERTS)]
    for n in range(len(tokens_Nd)):
        row = torch.zeros(HIDDEN)
        for i in range(EXPERTS):
            if chosen_NE[n, i]:
                up = experts.up[i] @ tokens_Nd[n]
                inner = act(up) if experts.gate is None else act(experts.gate[i] @ tokens_Nd[n]) * up
                out = experts.down[i] @ inner
                sums[i] = sums[i] + out.detach()
                row = row + weights_NE[n, i] * out
        rows.append(row)
    return torch.stack(rows), torch.stack(sums)


def _with_sums(experts: Experts, tokens_Nd, chosen_NE, weights_NE):
    output_Nd, rows = experts(tokens_Nd, chosen_NE, weights_NE)
    return output_Nd, rows.sums_Ed()


@pytest.mark.parametrize(("gated", "activation"), [(True, "silu"), (False, "gelu"), (False, "relu")])
def test_equal_a_plain_loop_with_its_gradients(gated, activation):
    experts, tokens_Nd, chosen_NE, weights_NE = _case(gated, activation)
    probe_Nd = torch.randn(TOKENS, HIDDEN)
    inputs = [tokens_Nd, weights_NE, *experts.parameters()]
    results = []
    for run in (lambda *a: _with_sums(experts, *a), lambda *a: _loop(experts, *a)):
        output_Nd, sums_Ed = run(tokens_Nd, chosen_NE, weights_NE)
        gradients = torch.autograd.grad((output_Nd * probe_Nd).sum(), inputs)
        results.append((output_Nd.detach(), sums_Ed, *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    output_Nd, sums_Ed, *_ = results[0]
    assert not output_Nd[0].any() and not sums_Ed[3].any() and output_Nd[1:].abs().max() > 0.1
    assert len(inputs) == (5 if gated else 4)


def test_weights_scale_outputs_not_inputs():
    """The wrong version weights the tokens on their way in, which a non-linear expert does not forgive."""
    experts, tokens_Nd, chosen_NE, _ = _case(True, "silu")
    chosen_NE = torch.zeros_like(chosen_NE)
    chosen_NE[:, 0] = True
    right, _ = experts(tokens_Nd, chosen_NE, chosen_NE * 0.5)
    wrong, _ = experts(tokens_Nd * 0.5, chosen_NE, chosen_NE * 1.0)
    assert (right - wrong).abs().max() > 1e-2


def test_no_assignment_at_all():
    experts, tokens_Nd, chosen_NE, weights_NE = _case(True, "silu")
    output_Nd, sums_Ed = _with_sums(experts, tokens_Nd, torch.zeros_like(chosen_NE), weights_NE)
    assert output_Nd.shape == (TOKENS, HIDDEN) and not output_Nd.any() and sums_Ed.shape == (EXPERTS, HIDDEN)


@pytest.mark.parametrize("gated", [True, False])
def test_a_dense_mlp_is_the_sum_of_its_slices(gated):
    """As K experts of a width with weights 1 are one network of K times the width."""
    torch.manual_seed(0)
    dense = DenseMlp(HIDDEN, 2 * WIDTH, gated, "silu", 0.5, dropout=0.0)
    experts = Experts(2, HIDDEN, WIDTH, gated, "silu", 0.5)
    for name in ("up", "gate") if gated else ("up",):
        getattr(experts, name).data.copy_(getattr(dense, name).weight.data.view(2, WIDTH, HIDDEN))
    experts.down.data.copy_(dense.down.weight.data.view(HIDDEN, 2, WIDTH).transpose(0, 1))
    tokens_Nd, ones_NE = torch.randn(5, HIDDEN), torch.ones(5, 2)
    torch.testing.assert_close(dense(tokens_Nd), experts(tokens_Nd, ones_NE.bool(), ones_NE)[0], atol=1e-5, rtol=1e-4)


def test_dense_dropout_acts_in_training_alone():
    dense = DenseMlp(HIDDEN, WIDTH, True, "silu", 0.5, dropout=0.5)
    for parameter in dense.parameters():
        nn.init.ones_(parameter)
    assert (dense(torch.ones(50, HIDDEN)) == 0).float().mean() > 0.3
    assert dense.eval()(torch.ones(50, HIDDEN)).min() > 0


@pytest.mark.parametrize("spare", [None, 0, 1, 20])
@pytest.mark.parametrize("biases", [(), ("up_bias", "gate_bias", "down_bias")])
@pytest.mark.parametrize("gated", [True, False])
def test_grouped_products_equal_one_product_each(gated, biases, spare, monkeypatch):
    biases = tuple(b for b in biases if gated or b != "gate_bias")
    experts, tokens_Nd, chosen_NE, weights_NE = _case(gated, "silu", biases)
    most = None if spare is None else int(chosen_NE.sum()) + spare
    at = sorted_on_device(chosen_NE, most)
    assert len(at.token_A) == int(chosen_NE.sum()) + (spare or 0)
    inputs, probe_Nd, results = [tokens_Nd, weights_NE, *experts.parameters()], torch.randn(TOKENS, HIDDEN), []
    for way in ("_looped", "_grouped"):
        if way == "_grouped":
            monkeypatch.setattr(experts, "_looped", lambda tokens, _: experts._grouped(tokens, at))
        output_Nd, rows = experts(tokens_Nd, chosen_NE, weights_NE)
        gradients = torch.autograd.grad((output_Nd * probe_Nd).sum(), inputs)
        results.append((output_Nd.detach(), rows.sums_Ed(), *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_fills_the_list_up_is_no_assignment():
    chosen_NE = torch.tensor([[True, False], [False, False], [True, True]])
    at = sorted_on_device(chosen_NE, 5)
    assert at.real_A.tolist() == [True, True, True, False, False]
    assert at.token_A[:3].tolist() == [0, 2, 2] and at.expert_A[:3].tolist() == [0, 0, 1]
    assert at.counts_E.tolist() == [2, 1]
    assert len(sorted_on_device(chosen_NE, 100).token_A) == chosen_NE.numel()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_agrees_and_in_16_bits_never_waits_for_the_host(dtype):
    torch.manual_seed(0)
    experts = Experts(EXPERTS, 32, 64, True, "silu", 0.2)
    experts.reset_parameters()
    tokens_Nd, scores_NE = torch.randn(50, 32), torch.randn(50, EXPERTS)
    chosen_NE = select_topk(scores_NE, 2)
    expected, _ = experts(tokens_Nd, chosen_NE, chosen_NE * 0.5)
    experts, inputs = experts.cuda(), [t.cuda() for t in (tokens_Nd, chosen_NE, chosen_NE * 0.5)]
    # Grouped products of float32 are a loop in PyTorch, which asks where the groups end.
    torch.cuda.set_sync_debug_mode("error" if dtype == torch.bfloat16 else "default")
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found, _ = experts(*inputs, most=100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found.float().cpu(), expected, atol=tolerance, rtol=tolerance)
