"""Keeping the projector orthogonal, and the measures of orthogonality.

Letters: E experts, D router dimension.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from router_cases import EXPERTS, HIDDEN, inputs_of, normal, reset, router_of, settings_of

from spectra_exp.routing.orthogonality import (
    MEASURES,
    mean_cosine,
    negative_log_determinant,
    newton_schulz,
    polar_factor,
    representation_loss,
)
from spectra_exp.routing.osr import OsrConfig, gram, representation_orthogonality
from spectra_exp.routing.projectors import ORTHOGONALIZATIONS, make_expression

DIM = 2


def source_of(kind: str, every: int = 3, dim: int = DIM):
    source = make_expression("projector", kind, every, HIDDEN, EXPERTS, dim)
    torch.manual_seed(0)
    source.reset_parameters()
    return source


def orthogonality_error(weight) -> float:
    """Largest entry of W W^T (or W^T W) over its mean diagonal, less I."""
    product = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    product = product / product.diagonal().mean()
    return float((product - torch.eye(len(product))).abs().max())


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6)])
def test_polar_factor_and_newton_schulz_against_scipy(shape):
    weight = normal(*shape)
    expected = torch.from_numpy(scipy.linalg.polar(weight.double().numpy())[0]).float()
    torch.testing.assert_close(newton_schulz(weight), expected, atol=1e-5, rtol=1e-4)
    found = polar_factor(weight)
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(), weight.norm())
    # Planted fault: two iterations are too few.
    x = weight / weight.norm()
    for _ in range(2):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    assert (x - expected).abs().max() > 0.05


def test_newton_schulz_is_differentiable():
    weight = normal(3, 5).double().requires_grad_()
    probe = normal(3, 5, seed=1).double()

    def value(w):
        # In float32 inside, so finite differences are coarse.
        return (newton_schulz(w).double() * probe).sum()

    (gradient,) = torch.autograd.grad(value(weight), weight)
    direction, step = normal(3, 5, seed=2).double(), 1e-3
    with torch.no_grad():
        numeric = (value(weight + step * direction) - value(weight - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-2)
    # The polar factor is blind to scale.
    assert float((gradient * weight).sum().abs()) < 1e-4


def test_every_kind_starts_as_it_says():
    weights = {kind: source_of(kind).weight().detach() for kind in ORTHOGONALIZATIONS}
    assert torch.equal(weights["init"], weights["periodic"])
    torch.testing.assert_close(weights["newton_schulz"], weights["init"], atol=1e-6, rtol=1e-4)
    for kind, weight in weights.items():
        assert (orthogonality_error(weight) < 1e-4) == (kind != "none")
    assert float(weights["none"].norm()) == pytest.approx(float(weights["init"].norm()), rel=0.3)


def test_periodic_comes_back_every_n_steps_and_keeps_the_scale():
    source = source_of("periodic")
    norms = []
    for step in range(1, 7):
        with torch.no_grad():
            source.linear.weight += 0.05 * normal(*source.linear.weight.shape, seed=step)
        norms.append(float(source.linear.weight.detach().norm()))
        source.after_step()
        assert (orthogonality_error(source.linear.weight.detach()) < 1e-4) == (step % 3 == 0)
        assert float(source.linear.weight.detach().norm()) == pytest.approx(norms[-1], rel=1e-4)
    # A resumed run keeps the beat.
    other = source_of("periodic")
    other.load_state_dict(source.state_dict())
    assert other.steps == 6


def test_init_alone_never_comes_back():
    """Planted fault: without the periodic step the projector drifts away."""
    router = router_of(settings_of("spectra", orthogonalization="init", dim=DIM))
    periodic = router_of(settings_of("spectra", orthogonalization="periodic", orthogonalize_every=1, dim=DIM))
    for r in (router, periodic):
        with torch.no_grad():
            r.expression.linear.weight += normal(*r.expression.linear.weight.shape)
        r.after_step(torch.ones(EXPERTS), 1.0)
    assert orthogonality_error(router.expression.linear.weight.detach()) > 0.1
    assert orthogonality_error(periodic.expression.linear.weight.detach()) < 1e-4


def test_newton_schulz_is_orthogonal_whatever_the_weights_and_has_no_projector_loss():
    router = router_of(settings_of("spectra", orthogonalization="newton_schulz", dim=DIM))
    with torch.no_grad():
        router.expression.linear.weight += normal(*router.expression.linear.weight.shape)
    assert orthogonality_error(router.expression.weight().detach()) < 1e-3
    assert orthogonality_error(router.expression.linear.weight.detach()) > 0.1
    output = router(inputs_of(training=True))
    assert "projector_ortho" not in output.losses
    (output.weights_NE * normal(21, EXPERTS)).sum().backward()
    assert router.expression.linear.weight.grad.abs().max() > 0
    assert "projector_ortho" in router_of(settings_of("spectra"))(inputs_of(training=True)).losses


def test_measures_by_hand():
    half = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, -0.2], [0.0, -0.2, 1.0]])
    assert float(mean_cosine(half)) == pytest.approx((0.5 - 0.2) * 2 / 6)
    ridged = half.numpy().astype(float) + 1e-3 * np.eye(3)
    assert float(negative_log_determinant(half)) == pytest.approx(-math.log(np.linalg.det(ridged)), rel=1e-4)
    # Planted fault: the diagonal, always 1, left in the mean.
    assert float(half.mean()) != pytest.approx(float(mean_cosine(half)), rel=0.1)


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_are_least_for_orthogonal_experts_and_finite_for_equal_ones(measure):
    orthogonal, equal = torch.eye(4), torch.ones(4, 4)
    least, most = (float(representation_loss(g, measure, True)) for g in (orthogonal, equal))
    assert math.isfinite(most) and abs(least) < 0.01 < most
    rows = normal(6, 3).requires_grad_()  # E > D: G is singular
    representation_loss(gram(rows), measure, True).backward()
    assert rows.grad.isfinite().all() and rows.grad.abs().max() > 0
    assert float(representation_loss(torch.ones(1, 1), measure, True)) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("measure", MEASURES)
def test_descending_a_measure_parts_the_experts(measure):
    rows = (torch.ones(4, 6) + 0.3 * normal(4, 6)).requires_grad_()
    before = float((gram(rows).detach() - torch.eye(4)).abs().sum())
    optimizer = torch.optim.Adam([rows], 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        representation_loss(gram(rows), measure, False).backward()
        optimizer.step()
    assert float((gram(rows).detach() - torch.eye(4)).abs().sum()) < 0.7 * before


def test_the_router_trains_by_the_measure_it_is_given():
    losses = {}
    for measure in MEASURES:
        router = router_of(settings_of("spectra", osr=OsrConfig(), orthogonality_measure=measure))
        output = router(inputs_of(training=True))
        g = gram(output.representation_ED)
        losses[measure] = float(output.losses["representation_ortho"])
        assert losses[measure] == pytest.approx(float(representation_loss(g, measure, True)), rel=1e-5)
    assert losses["gram"] == pytest.approx(float(representation_orthogonality(g, True)), rel=1e-5)
    assert len({round(value, 4) for value in losses.values()}) == len(MEASURES)


def test_resetting_draws_each_kind_anew():
    for kind in ORTHOGONALIZATIONS:
        source = source_of(kind)
        before = source.linear.weight.detach().clone()
        reset(source, seed=9)
        assert not torch.allclose(before, source.linear.weight.detach())
