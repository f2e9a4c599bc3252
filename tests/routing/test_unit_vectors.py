"""Unit vectors equal torch's, with torch's gradient."""

from __future__ import annotations

import pytest
import torch
from router_cases import normal

from spectra_exp.routing.unit_vectors import unit_vectors


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_as_torch_does(scale):
    found, expected = ((scale * normal(3, 5, 4)).requires_grad_() for _ in range(2))
    slope = normal(3, 5, 4, seed=1)
    ours, theirs = unit_vectors(found), torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(ours, theirs)
    (ours * slope).sum().backward()
    (theirs * slope).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5 / scale)


def test_the_gradient_by_differences_and_no_second_one():
    raw = normal(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(unit_vectors, raw)
    (slope,) = torch.autograd.grad(unit_vectors(raw).square().sum(), raw, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_zeros_stay_zeros_and_finite():
    raw = torch.zeros(2, 3, requires_grad=True)
    unit_vectors(raw).sum().backward()
    assert unit_vectors(raw).eq(0).all() and raw.grad.isfinite().all()
