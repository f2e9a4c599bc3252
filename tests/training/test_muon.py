"""Letters: E experts."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import _muon as torch_muon

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.training.muon import MuonAdamW, orthogonalise


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _params(*shapes: tuple[int, ...], seed: int = 0) -> list[nn.Parameter]:
    return [nn.Parameter(_normal(*shape, seed=seed + i)) for i, shape in enumerate(shapes)]


def _run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    """Steps with gradients that depend on the step and on the parameters alone."""
    for step in steps:
        for i, param in enumerate(params):
            param.grad = _normal(*param.shape, seed=1000 * step + i) + 0.1 * param.detach()
        optimizer.step()


def _float32_newton_schulz(grad: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """torch's iteration without its bfloat16, one matrix at a time, written out from the formula."""
    a, b, c = coefficients
    x = grad / grad.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


_shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(_shapes, min_size=1, max_size=4),
    adjust_lr=st.sampled_from(["original", "match_rms_adamw"]),
    nesterov=st.booleans(),
    momentum=st.sampled_from([0.0, 0.9, 0.95]),
    weight_decay=st.sampled_from([0.0, 0.2]),
)
def test_equal_to_torch_on_matrices(shapes, adjust_lr, nesterov, momentum, weight_decay) -> None:
    ours, theirs = _params(*shapes), _params(*shapes)
    group = {"params": ours, "kind": "muon", "adjust_lr": adjust_lr, "nesterov": nesterov, "momentum": momentum}
    _run(MuonAdamW([group], lr=0.05, weight_decay=weight_decay), ours, range(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_muon, "_zeropower_via_newtonschulz", _float32_newton_schulz)
        reference = torch.optim.Muon(
            theirs, lr=0.05, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, adjust_lr_fn=adjust_lr
        )
        _run(reference, theirs, range(4))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_agrees_loosely_with_torch_in_bfloat16() -> None:
    ours, theirs, start = (_params((16, 48), (48, 16)) for _ in range(3))
    _run(MuonAdamW([{"params": ours, "kind": "muon"}], lr=0.02, weight_decay=0.1), ours, range(3))
    _run(torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1), theirs, range(3))
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.05 * (b - before).norm()


@settings(max_examples=25, deadline=None)
@given(
    stacks=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3),
    adjust_lr=st.sampled_from(["original", "match_rms_adamw"]),
)
def test_each_expert_is_updated_as_a_matrix_of_its_own(stacks, adjust_lr) -> None:
    stacked = _params(*stacks)
    _run(MuonAdamW([{"params": stacked, "kind": "muon", "adjust_lr": adjust_lr}], weight_decay=0.1), stacked, range(3))
    for i, shape in enumerate(stacks):
        for e in range(shape[0]):
            # One expert alone, given the slices of the same gradients.
            alone = [nn.Parameter(_normal(*shape, seed=i)[e].clone())]
            optimizer = MuonAdamW([{"params": alone, "kind": "muon", "adjust_lr": adjust_lr}], weight_decay=0.1)
            for step in range(3):
                alone[0].grad = _normal(*shape, seed=1000 * step + i)[e] + 0.1 * alone[0].detach()
                optimizer.step()
            torch.testing.assert_close(stacked[i][e], alone[0], atol=1e-4, rtol=1e-4)


def _singular_values(matrices: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrices.float())


def _is_orthogonal_per_expert(update: Tensor) -> bool:
    values = _singular_values(update)
    return bool(((values > 0.6) & (values < 1.3)).all())


def test_planted_fault_a_flattened_stack_is_not_orthogonal_per_expert() -> None:
    stack = _normal(4, 8, 12) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(4, 1, 1)
    assert _is_orthogonal_per_expert(orthogonalise(stack))
    flat_rows = orthogonalise(stack.reshape(1, 32, 12)).reshape(4, 8, 12)
    flat_columns = orthogonalise(stack.reshape(1, 4, 96)).reshape(4, 8, 12)
    assert not _is_orthogonal_per_expert(flat_rows)
    assert not _is_orthogonal_per_expert(flat_columns)


def test_planted_fault_one_norm_for_the_whole_stack_depends_on_the_other_experts() -> None:
    stack = _normal(3, 6, 6)
    louder = stack * torch.tensor([1.0, 1000.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(orthogonalise(louder)[0], orthogonalise(stack)[0])
    x = louder / louder.norm()
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    assert _singular_values(x)[0].max() < 0.3 < _singular_values(orthogonalise(louder))[0].max()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.sampled_from([1e-3, 1.0, 1e4]))
def test_orthogonalise_keeps_the_singular_vectors(B: int, M: int, N: int, seed: int, scale: float) -> None:
    # Singular values between 0.2 and 1: a far smaller one would need more steps.
    side = min(M, N)
    left = torch.linalg.qr(_normal(B, M, side, seed=seed)).Q
    right = torch.linalg.qr(_normal(B, N, side, seed=seed + 1)).Q
    values = 0.2 + 0.8 * torch.rand(B, side, generator=torch.Generator().manual_seed(seed))
    found = orthogonalise(scale * (left * values.unsqueeze(1)) @ right.mT)
    assert found.shape == (B, M, N)
    inner = left.mT @ found @ right
    diagonal = torch.diagonal(inner, dim1=-2, dim2=-1)
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all()
    torch.testing.assert_close(inner, torch.diag_embed(diagonal), atol=2e-3, rtol=0)


def test_a_zero_matrix_stays_zero_and_the_dtype_is_kept() -> None:
    assert orthogonalise(torch.zeros(2, 3, 4)).abs().max() == 0
    assert orthogonalise(_normal(2, 3, 4).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.9), "eps": 1e-5, "weight_decay": 0.3, "lr": 0.01}])
def test_adamw_groups_are_torch_s_bit_for_bit(options: dict) -> None:
    shapes = [(5,), (3, 4), (2, 3, 4), ()]
    ours, theirs = _params(*shapes), _params(*shapes)
    _run(MuonAdamW([{"params": ours, "kind": "adamw", **options}], weight_decay=0.0), ours, range(6))
    _run(torch.optim.AdamW(theirs, **{"weight_decay": 0.0} | options), theirs, range(6))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def _mixed(params: list[nn.Parameter]) -> tuple[MuonAdamW, torch.optim.lr_scheduler.LambdaLR]:
    muon = [p for p in params if p.ndim >= 2]
    optimizer = MuonAdamW(
        [
            {"params": muon, "kind": "muon", "lr": 0.07, "momentum": 0.9, "names": ["m"] * len(muon)},
            {"params": [p for p in params if p.ndim < 2], "kind": "adamw", "lr": 0.007},
        ],
        weight_decay=0.2,
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


_MIXED = [(6, 4), (4, 6), (3, 4, 6), (3, 6, 4), (5,)]


@pytest.mark.parametrize("through_file", [False, True])
def test_a_restored_state_goes_on_bit_for_bit(tmp_path, through_file: bool) -> None:
    whole = _params(*_MIXED)
    optimizer, schedule = _mixed(whole)
    for step in range(8):
        _run(optimizer, whole, range(step, step + 1))
        schedule.step()
        if step == 3:
            saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict(), [p.detach() for p in whole]))
    if through_file:
        torch.save(saved, tmp_path / "state.pt")
        saved = torch.load(tmp_path / "state.pt", weights_only=True)

    resumed = [nn.Parameter(value.clone()) for value in saved[2]]
    optimizer, schedule = _mixed(resumed)
    optimizer.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    for step in range(4, 8):
        _run(optimizer, resumed, range(step, step + 1))
        schedule.step()
    for a, b in zip(resumed, whole, strict=True):
        assert torch.equal(a, b)


def test_planted_fault_a_lost_momentum_changes_the_continuation() -> None:
    whole, forgetful = _params(*_MIXED), _params(*_MIXED)
    one, two = _mixed(whole)[0], _mixed(forgetful)[0]
    _run(one, whole, range(3))
    _run(two, forgetful, range(3))
    two.state.clear()
    _run(one, whole, range(3, 4))
    _run(two, forgetful, range(3, 4))
    assert not any(torch.equal(a, b) for a, b in zip(whole, forgetful, strict=True))


def test_parameters_without_gradient_stay_and_have_no_state() -> None:
    params = _params((4, 4), (4, 4), (3,), (3,))
    before = [p.detach().clone() for p in params]
    optimizer = _mixed(params)[0]
    params[0].grad, params[2].grad = _normal(4, 4), _normal(3)
    optimizer.step()
    assert [torch.equal(p, b) for p, b in zip(params, before, strict=True)] == [False, True, False, True]
    assert len(optimizer.state) == 2


def test_the_schedule_scales_both_kinds_and_accumulated_gradients_are_one_step() -> None:
    params = _params((4, 6), (5,))
    optimizer, schedule = _mixed(params)
    x = _normal(6)
    for _ in range(2):  # two micro-batches
        ((params[0] @ x).sum() + (params[1] ** 2).sum()).backward()
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.063, 0.0063])
    once = _params((4, 6), (5,))
    other = _mixed(once)[0]
    (2 * ((once[0] @ x).sum() + (once[1] ** 2).sum())).backward()
    other.step()
    for a, b in zip(params, once, strict=True):
        torch.testing.assert_close(a, b)


def test_a_closure_s_loss_is_returned() -> None:
    (param,) = _params((3, 3))
    optimizer = MuonAdamW([{"params": [param], "kind": "muon"}])

    def closure() -> float:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    assert first is not None and optimizer.step(closure) < first


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"kind": "moun"}, "did you mean 'muon'"),
        ({}, "unknown name 'None'"),
        ({"kind": "muon", "betas": (0.9, 0.95)}, "optim.betas: has no effect"),
        ({"kind": "adamw", "momentum": 0.9}, "optim.momentum: has no effect"),
        ({"kind": "muon", "adjust_lr": "none"}, "optim.adjust_lr"),
        ({"kind": "muon", "params": [nn.Parameter(torch.zeros(5))]}, "shape (5,)"),
    ],
)
def test_wrong_groups_are_refused(group: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MuonAdamW([{"params": _params((3, 3)), **group}])
    assert message in str(caught.value)


def test_parameters_flattened_after_the_start_are_refused_not_misread() -> None:
    (param,) = _params((3, 4))
    optimizer = MuonAdamW([{"params": [param], "kind": "muon"}])
    flat = nn.Parameter(param.detach().flatten())
    flat.grad = torch.ones(12)
    optimizer.param_groups[0]["params"] = [flat]
    with pytest.raises(ConfigError, match="ZeRO"):
        optimizer.step()


def test_it_learns_a_linear_map_with_stacked_experts() -> None:
    target, x = _normal(3, 8, 5), _normal(3, 5, 64, seed=1)
    (weight,) = _params((3, 8, 5), seed=9)
    optimizer = MuonAdamW([{"params": [weight], "kind": "muon", "lr": 0.1}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / 300)))
    for _ in range(300):
        optimizer.zero_grad()
        loss = ((weight - target) @ x).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert loss < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu_and_with_torch() -> None:
    stack = _normal(4, 32, 64)
    on_gpu = orthogonalise(stack.cuda())
    assert on_gpu.is_cuda and on_gpu.dtype == torch.float32
    assert (on_gpu.cpu() - orthogonalise(stack)).norm() < 0.03 * orthogonalise(stack).norm()
    ours, theirs = ([nn.Parameter(_normal(32, 64).cuda())] for _ in range(2))
    gradient = _normal(32, 64, seed=5).cuda()
    ours[0].grad = theirs[0].grad = gradient
    MuonAdamW([{"params": ours, "kind": "muon"}], lr=0.02, weight_decay=0.1).step()
    torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1).step()
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-3, rtol=1e-2)
