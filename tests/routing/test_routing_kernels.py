"""Routing's kernels beside the plain path, on a GPU where there is one and else under Triton's interpreter.

Letters: B sequences, S tokens each, W channels, N tokens, E experts.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from spectra_exp.foundations.collective import Ranks
from spectra_exp.foundations.kernels import PLAIN, TRITON
from spectra_exp.routing.sequence import make_encoder
from spectra_exp.routing.sequence.min_gru import GateBiases
from spectra_exp.routing.sequence.recurrence import recurrence
from spectra_exp.routing.sinkhorn import log_scaling, plan_of, sinkhorn

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
# What float32 of the plain path may be off float64 besides: of the largest entry.
ROUNDING = 1e-6
on_a_device = pytest.mark.skipif(not (GPU or INTERPRETED), reason="needs a CUDA device, or Triton's interpreter")


def agree(found, plain, exact) -> None:
    """Not further from float64 than twice the plain path in float32, and rounding."""
    for one, other, expected in zip(found, plain, exact, strict=True):
        one, other = one.detach().cpu().double(), other.detach().double()
        assert one.shape == expected.shape and one.isfinite().all()
        allowed = 2 * (other - expected).abs().max() + ROUNDING * expected.abs().max()
        assert (one - expected).abs().max() <= allowed


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that is taken without being set holds NaN, so that what is not written is seen."""
    for module, name in ((torch, "empty_like"), (torch.Tensor, "new_empty")):
        plain = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *sizes, plain=plain, **options: plain(*sizes, **options).fill_(torch.nan)
        )


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks of few entries, which the interpreter takes one after the other."""
    from spectra_exp.routing.fused import column_scaling, linear_recurrence

    monkeypatch.setattr(column_scaling, "BLOCK_ENTRIES", 512)
    monkeypatch.setattr(column_scaling, "MOST_PROGRAMS", 3)
    monkeypatch.setattr(linear_recurrence, "STEPS", 8)
    monkeypatch.setattr(linear_recurrence, "CHANNELS", 4)


def scaled(scaling, kernel_NE, probe_NE, iterations):
    """Column scalings, the plan's logarithm, and the gradient of a sum over both and the plan."""
    kernel_NE = kernel_NE.detach().requires_grad_()
    log_v_E = scaling(kernel_NE, iterations)
    plan = plan_of(kernel_NE + log_v_E, log_v_E)
    loss = ((plan.plan_NE + 0.01 * plan.log_plan_NE + log_v_E) * probe_NE).sum()
    return log_v_E, plan.log_plan_NE, *torch.autograd.grad(loss, kernel_NE)


def costs(kind: str, tokens: int, experts: int) -> torch.Tensor:
    cost_NE = torch.randn(tokens, experts).clamp(-1, 1)
    if kind == "skewed":
        # The first expert is every token's best, the last one nobody's.
        cost_NE[:, 0] -= 3
        cost_NE[:, -1] += 3
    return 1000 * cost_NE if kind == "large" else cost_NE


@on_a_device
@pytest.mark.gpu
@pytest.mark.parametrize(
    "kind, tokens, experts, epsilon, iterations",
    [
        ("random", 300, 8, 0.5, 3),
        ("random", 1, 5, 0.5, 3),
        ("random", 2, 1, 0.5, 2),
        # One expert more than a power of two, rows that fill no block.
        ("random", 261, 33, 0.5, 3),
        ("random", 37, 513, 0.5, 1),
        ("skewed", 530, 17, 0.05, 3),
        ("skewed", 70, 16, 0.002, 8),
        ("large", 300, 9, 0.05, 3),
    ],
)
def test_column_scalings_equal_the_plain_path(kind, tokens, experts, epsilon, iterations, poisoned, request):
    from spectra_exp.routing.fused.column_scaling import column_scaling

    if kind != "random":
        request.getfixturevalue("small_blocks")
    torch.manual_seed(0)
    kernel_NE, probe_NE = -costs(kind, tokens, experts) / epsilon, torch.randn(tokens, experts)
    exact = scaled(log_scaling, kernel_NE.double(), probe_NE.double(), iterations)
    plain = scaled(log_scaling, kernel_NE, probe_NE, iterations)
    found, again = (scaled(column_scaling, kernel_NE.to(DEVICE), probe_NE.to(DEVICE), iterations) for _ in range(2))
    agree(found, plain, exact)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@on_a_device
def test_sinkhorn_takes_the_kernels_alone_and_the_plain_path_in_a_group(poisoned, monkeypatch):
    from spectra_exp.routing.fused import column_scaling

    cost_NE = torch.randn(70, 6, device=DEVICE)
    calls, fused = [], column_scaling.column_scaling
    monkeypatch.setattr(column_scaling, "column_scaling", lambda *given: calls.append(1) or fused(*given))
    for options, expected in (
        ({}, 1),
        ({"gradient": "stopped"}, 1),
        ({"log_domain": False}, 0),
        # Ranks of their own add up the columns of several processes.
        ({"ranks": Ranks()}, 0),
    ):
        calls.clear()
        gradients, plans = [], []
        for kernel in (PLAIN, TRITON):
            leaf_NE = cost_NE.clone().requires_grad_()
            plan = sinkhorn(leaf_NE, 0.2, 3, kernel=kernel, **options)
            plans.append(plan)
            gradients += torch.autograd.grad(plan.plan_NE.square().sum(), leaf_NE)
        assert len(calls) == expected
        torch.testing.assert_close(plans[1].plan_NE, plans[0].plan_NE, atol=2e-6, rtol=2e-5)
        torch.testing.assert_close(plans[1].potentials_E, plans[0].potentials_E, atol=2e-6, rtol=2e-5)
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert sinkhorn(cost_NE[:0], 0.2, 3, kernel=TRITON).plan_NE.shape == (0, 6)


def recurrent(kernel, keep_BSW, add_BSW, probe_BSW, mask_BS=None, first_BW=None):
    """States and gradients of all that is given."""
    inputs = [t.detach().requires_grad_() for t in (keep_BSW, add_BSW, first_BW) if t is not None]
    hidden_BSW = recurrence(*inputs[:2], mask_BS, inputs[2] if first_BW is not None else None, kernel)
    return hidden_BSW, *torch.autograd.grad((hidden_BSW * probe_BSW).sum(), inputs)


def gates(kind: str, *sizes: int) -> torch.Tensor:
    match kind:
        case "slow":
            # Nothing is forgotten over all blocks.
            return 1 - 1e-3 * torch.rand(sizes)
        case "extreme":
            # Forgets all, keeps all, or keeps next to nothing.
            return torch.tensor([0.0, 1.0, 1e-30])[torch.randint(3, sizes)]
    return torch.sigmoid(torch.randn(sizes))


@on_a_device
@pytest.mark.gpu
@pytest.mark.parametrize(
    "kind, sizes",
    [
        ("random", (1, 1, 33)),
        ("random", (1, 65, 3)),
        ("slow", (2, 203, 5)),
        ("extreme", (1, 129, 6)),
        ("slow", (3, 64, 4)),
    ],
)
def test_the_scan_equals_the_plain_path(kind, sizes, poisoned, request):
    if kind != "random":
        request.getfixturevalue("small_blocks")
    torch.manual_seed(0)
    case = gates(kind, *sizes), torch.randn(sizes), torch.randn(sizes)
    exact = recurrent(PLAIN, *(t.double() for t in case))
    plain = recurrent(PLAIN, *case)
    found, again = (recurrent(TRITON, *(t.to(DEVICE) for t in case)) for _ in range(2))
    agree(found, plain, exact)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@on_a_device
def test_the_scan_of_padded_sequences_from_a_state_and_of_expanded_gates(poisoned, small_blocks):
    mask_BS = torch.rand(2, 20) < 0.6
    keep_BSW = torch.rand(3).expand(2, 20, 3)
    case = keep_BSW, torch.randn(3, 20, 2).transpose(0, 2), torch.randn(2, 20, 3)
    for mask, first in ((mask_BS, torch.randn(2, 3)), (None, None)):
        exact, plain = (
            recurrent(PLAIN, *(t.to(dtype) for t in case), mask, None if first is None else first.to(dtype))
            for dtype in (torch.float64, torch.float32)
        )
        on_device = [None if t is None else t.to(DEVICE) for t in (*case, mask, first)]
        agree(recurrent(TRITON, *on_device), plain, exact)
    assert recurrence(*torch.empty(2, 0, 4, 3, device=DEVICE), None, None, TRITON).shape == (0, 4, 3)


@on_a_device
def test_the_encoder_hands_its_state_on(poisoned, small_blocks):
    encoder = make_encoder("min_gru", 6, 4, 5, GateBiases()).to(DEVICE)
    encoder.reset_parameters()
    hidden = torch.randn(2, 9, 6, device=DEVICE)
    expected, last = encoder(hidden, None, None)
    encoder.kernel = TRITON
    first, state = encoder(hidden[:, :4], None, None)
    second, end = encoder(hidden[:, 4:], None, state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), expected)
    torch.testing.assert_close(end, last)


@pytest.mark.skipif(GPU or INTERPRETED, reason="the tests of this file run as they are")
def test_the_tests_of_this_file_pass_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "not interpreter"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]
