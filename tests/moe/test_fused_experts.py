"""The experts' kernels beside the plain path, on a GPU where there is one and else under Triton's interpreter.

Letters: N tokens, E experts, d hidden size, f expert width.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch

from spectra_exp.moe.experts import PLAIN, TRITON, Experts

pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
# Of ||found - expected|| / ||expected||.
FLOAT32, HALF = 2e-6, 1e-2
on_a_device = pytest.mark.skipif(not (GPU or INTERPRETED), reason="needs a CUDA device, or Triton's interpreter")
SMALL, LARGE = (140, 4, 48, 32), (3000, 24, 512, 640)
# On a GPU as large as what configurations are tried for.
TOKENS, EXPERTS, HIDDEN, WIDTH = LARGE if GPU else SMALL


def chosen_of(load: str, tokens: int = TOKENS) -> torch.Tensor:
    """Choices, bool [N, E]: of any number of experts, all of one, two of a skewed few, or none at all."""
    chosen_NE = torch.zeros(tokens, EXPERTS, dtype=torch.bool)
    if load == "ragged":
        chosen_NE = torch.rand(tokens, EXPERTS) < 0.4
        # A token without an expert, and an expert without a token.
        chosen_NE[0], chosen_NE[:, 3] = False, False
    elif load == "one":
        chosen_NE[:, 2] = True
    elif load == "skewed":
        scores_NE = torch.randn(tokens, EXPERTS) - torch.arange(EXPERTS)
        chosen_NE.scatter_(1, scores_NE.topk(2).indices, True)
    return chosen_NE


def experts_of(gated: bool, activation: str) -> Experts:
    experts = Experts(EXPERTS, HIDDEN, WIDTH, gated, activation, HIDDEN**-0.5)
    experts.reset_parameters()
    return experts


def exactly(experts: Experts, *case):
    """What the plain path gives in float64."""
    return passed(copy.deepcopy(experts).double(), PLAIN, *(t.double() if t.is_floating_point() else t for t in case))


def passed(experts: Experts, kernel: str, chosen_NE, tokens_Nd, weights_NE, probe_Nd, most=None):
    """Output, summed outputs and gradients of one forward and backward pass."""
    experts.kernel = kernel
    inputs = [tokens_Nd.requires_grad_(), weights_NE.requires_grad_(), *experts.parameters()]
    output_Nd, rows = experts(tokens_Nd, chosen_NE, weights_NE, most)
    gradients = torch.autograd.grad((output_Nd.float() * probe_Nd).sum(), inputs)
    return [output_Nd.detach(), rows.sums_Ed(), *gradients]


def agree(found, expected, tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        one, other = one.detach().double().cpu(), other.detach().double().cpu()
        assert one.shape == other.shape and one.isfinite().all()
        assert (one - other).norm() <= tolerance * other.norm().clamp(min=1e-6)


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that is taken without being set holds NaN, so that what is not written is seen."""
    for module, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        plain = getattr(module, name)

        def filled(*sizes, plain=plain, **options):
            made = plain(*sizes, **options)
            if made.is_floating_point():
                made.fill_(torch.nan)
            return made.fill_(-(2**30)) if made.dtype == torch.int32 else made

        monkeypatch.setattr(module, name, filled)


@pytest.fixture
def bfloat16_products(monkeypatch):
    """Makes the interpreter multiply bfloat16 as numbers: it multiplies their bits, which it holds as integers."""
    if not INTERPRETED:
        return
    from triton.runtime import interpreter

    dot = interpreter.InterpreterBuilder.create_dot

    def widened(operand):
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        values = (operand.data.astype("uint32") << 16).view("float32")
        return interpreter.TensorHandle(values, tl.float32)

    monkeypatch.setattr(
        interpreter.InterpreterBuilder, "create_dot", lambda own, a, b, *rest: dot(own, widened(a), widened(b), *rest)
    )


@on_a_device
@pytest.mark.parametrize(
    "tokens, sizes, top_k", [(1, (5, 48, 32), 2), (129, (3, 80, 112), 3), (7, (130, 16, 48), 4), (40, (6, 33, 17), 1)]
)
def test_a_single_token_and_sizes_that_fill_no_block(tokens, sizes, top_k, poisoned):
    experts = Experts(*sizes, True, "silu", 0.1)
    experts.reset_parameters()
    chosen_NE = torch.zeros(tokens, sizes[0], dtype=torch.bool)
    chosen_NE.scatter_(1, torch.randn(tokens, sizes[0]).topk(top_k).indices, True)
    tokens_Nd, probe_Nd = torch.randn(2, tokens, sizes[1]).unbind()
    case = chosen_NE, tokens_Nd, torch.rand(tokens, sizes[0]) * chosen_NE, probe_Nd
    expected = exactly(experts, *case)
    agree(passed(experts.to(DEVICE), TRITON, *(t.to(DEVICE) for t in case), tokens * top_k), expected, FLOAT32)


# Few activations, for each is compiled anew.
@on_a_device
@pytest.mark.gpu
@pytest.mark.parametrize(
    "gated, activation, load, spare",
    [
        (True, "silu", "ragged", 37),
        (True, "silu", "one", None),
        (True, "silu", "none", 5),
        (False, "gelu", "skewed", 0),
        pytest.param(True, "relu", "skewed", 0, marks=pytest.mark.skipif(GPU, reason="the interpreter's")),
    ],
)
def test_kernels_equal_the_plain_path(gated, activation, load, spare, poisoned):
    experts, chosen_NE = experts_of(gated, activation), chosen_of(load)
    tokens_Nd, probe_Nd = torch.randn(TOKENS, HIDDEN), torch.randn(TOKENS, HIDDEN)
    weights_NE = torch.rand(TOKENS, EXPERTS) * chosen_NE
    most = None if spare is None else int(chosen_NE.sum()) + spare
    case = chosen_NE, tokens_Nd, weights_NE, probe_Nd
    expected = exactly(experts, *case)
    found = passed(experts.to(DEVICE), TRITON, *(t.to(DEVICE) for t in case), most)
    agree(found, expected, FLOAT32)
    again = passed(experts, TRITON, *(t.to(DEVICE) for t in case), most)
    # But for the outputs' sums, which are added up in any order.
    del found[1], again[1]
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@on_a_device
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_stay_near_the_plain_path(dtype, poisoned, bfloat16_products):
    experts, chosen_NE = experts_of(True, "silu"), chosen_of("ragged")
    case = chosen_NE, torch.randn(TOKENS, HIDDEN), torch.rand(TOKENS, EXPERTS) * chosen_NE, torch.randn(TOKENS, HIDDEN)
    expected = exactly(experts, *case)
    with torch.autocast(DEVICE, dtype):
        found = passed(experts.to(DEVICE), TRITON, *(t.to(DEVICE) for t in case), int(chosen_NE.sum()) + 3)
    assert found[0].dtype == dtype and all(g.dtype == torch.float32 for g in found[2:])
    # The interpreter cuts bits of bfloat16 off where a GPU rounds.
    agree(found, expected, 2 * HALF if INTERPRETED and dtype == torch.bfloat16 else HALF)


@on_a_device
def test_each_choice_of_blocks_gives_the_same_whatever_was_tried_before(poisoned, monkeypatch):
    """As where Triton tries them: one after the other, on the same memory."""
    from spectra_exp.moe.fused import tuning

    sizes = 2, 96, 160
    experts = Experts(*sizes, True, "silu", 0.1)
    experts.reset_parameters()
    experts.to(DEVICE)
    chosen_NE = torch.rand(140, 2, device=DEVICE) < 0.6
    tokens_Nd, probe_Nd = torch.randn(140, 96, device=DEVICE), torch.randn(140, 96, device=DEVICE)
    case = chosen_NE, tokens_Nd, torch.rand(140, 2, device=DEVICE) * chosen_NE, probe_Nd
    expected = exactly(experts, *case)
    choices = [tuning.blocks(columns, 32, 4, 2) for columns in (32, 64, 128)]
    tried = []

    def times(call, *_, quantiles):
        call()
        tried.append(call)
        return [float(len(tried) % 2)] * len(quantiles)

    monkeypatch.setattr(tuning, "_suitable", lambda *_, **__: choices)
    monkeypatch.setattr(tuning, "do_bench", times)
    import spectra_exp.moe.fused.experts  # noqa: F401

    for tuner in tuning.TUNED.values():
        monkeypatch.setattr(tuner, "configs", choices)
        monkeypatch.setattr(tuner, "cache", {})
    for orders in (choices, choices[::-1]):
        choices[:] = orders
        agree(passed(experts, TRITON, *case), expected, FLOAT32)
    assert len(tried) >= 3 * len(tuning.TUNED)


@on_a_device
def test_a_list_that_is_too_short_leaves_its_last_entries_out():
    experts, chosen_NE = experts_of(True, "silu").to(DEVICE), chosen_of("one").to(DEVICE)
    tokens_Nd, weights_NE = torch.randn(TOKENS, HIDDEN, device=DEVICE), torch.rand(TOKENS, EXPERTS, device=DEVICE)
    experts.kernel = TRITON
    with torch.no_grad():
        short_Nd, _ = experts(tokens_Nd, chosen_NE, weights_NE, TOKENS - 10)
        whole_Nd, _ = experts(tokens_Nd, chosen_NE, weights_NE, TOKENS)
    assert torch.equal(short_Nd[:-10], whole_Nd[:-10]) and not short_Nd[-10:].any() and whole_Nd[-10:].any()


@on_a_device
def test_lists_name_each_assignment_once():
    from spectra_exp.moe.fused.lists import TILE_ROWS, row_lists

    chosen_NE = chosen_of("ragged", tokens=1100)
    total = int(chosen_NE.sum())
    lists = row_lists(chosen_NE.to(DEVICE), total + 100)
    token_A, expert_A, row_A = (t[:total].cpu() for t in (lists.token_A, lists.expert_A, lists.row_A))
    expected_A, tokens_A = chosen_NE.T.nonzero(as_tuple=True)
    assert torch.equal(expert_A, expected_A.int()) and torch.equal(token_A, tokens_A.int())
    assert torch.equal(token_A[row_A.long()].long(), chosen_NE.nonzero()[:, 0])
    counts_E = chosen_NE.sum(0)
    assert torch.equal(lists.bounds_E.diff().cpu(), counts_E.int()) and lists.bounds_E[0] == 0
    assert torch.equal(lists.bounds_N.diff().cpu(), chosen_NE.sum(1).int())
    tiles = [
        (e, int(lists.bounds_E[e]) + at, min(int(counts_E[e]) - at, TILE_ROWS))
        for e in range(EXPERTS)
        for at in range(0, int(counts_E[e]), TILE_ROWS)
    ]
    found = zip(lists.expert_T.tolist(), lists.first_T.tolist(), lists.rows_T.tolist(), strict=True)
    assert list(found)[: len(tiles)] == tiles
    assert set(lists.expert_T[len(tiles) :].tolist()) == {-1}


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_nothing_waits_for_the_host_once_the_kernels_are_made():
    experts, chosen_NE = experts_of(True, "silu").cuda(), chosen_of("skewed").cuda()
    tokens_Nd, probe_Nd = torch.randn(TOKENS, HIDDEN, device="cuda"), torch.randn(TOKENS, HIDDEN, device="cuda")
    weights_NE = torch.rand(TOKENS, EXPERTS, device="cuda") * chosen_NE
    inputs = [tokens_Nd.requires_grad_(), weights_NE.requires_grad_(), *experts.parameters()]
    experts.kernel = TRITON

    def result() -> list[torch.Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            output_Nd, _ = experts(tokens_Nd, chosen_NE, weights_NE, 2 * TOKENS)
        return [output_Nd.detach(), *torch.autograd.grad(output_Nd, inputs, probe_Nd.to(output_Nd.dtype))]

    expected = result()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = result()
        with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
            probe_Nd.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(one.isfinite().all() and torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.skipif(GPU or INTERPRETED, reason="the tests of this file run as they are")
@pytest.mark.parametrize("names", ["lists or one", pytest.param("not interpreter", marks=pytest.mark.full)])
def test_the_tests_of_this_file_pass_under_the_interpreter(names):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", names]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]
