"""Letters: N tokens, E experts."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from router_cases import normal

from spectra_exp.routing.sinkhorn import sinkhorn


def _reference(cost_NE: torch.Tensor, epsilon: float) -> np.ndarray:
    """POT's plan, with its unit marginals scaled to rows of 1 and columns of N/E."""
    n, e = cost_NE.shape
    plan = ot.bregman.sinkhorn_log(
        np.full(n, 1 / n), np.full(e, 1 / e), cost_NE.double().numpy(), epsilon, numItermax=5000, stopThr=1e-12
    )
    return plan * n


@pytest.mark.parametrize("log_domain", [True, False])
@pytest.mark.parametrize("epsilon", [0.05, 0.2, 1.0])
def test_equals_an_independent_solver(epsilon, log_domain):
    cost_NE = torch.rand(40, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plan = sinkhorn(cost_NE, epsilon, 2000, log_domain=log_domain)
    np.testing.assert_allclose(plan.plan_NE.numpy(), _reference(cost_NE, epsilon), atol=2e-5)
    # Planted fault: columns scaled to 1/E instead of N/E would show here.
    np.testing.assert_allclose(plan.plan_NE.sum(0).numpy(), 40 / 5, rtol=1e-4)
    # Planted fault: the wrong epsilon is another plan.
    assert np.abs(plan.plan_NE.numpy() - _reference(cost_NE, epsilon * 2)).max() > 1e-2


def test_plain_pot_sinkhorn_agrees_too():
    cost_NE = normal(30, 4)
    expected = ot.sinkhorn(np.full(30, 1 / 30), np.full(4, 1 / 4), cost_NE.double().numpy(), 0.5, numItermax=5000)
    np.testing.assert_allclose(sinkhorn(cost_NE, 0.5, 500).plan_NE.numpy(), expected * 30, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 40),
    e=st.integers(1, 9),
    seed=st.integers(0, 99),
    iterations=st.integers(1, 8),
    epsilon=st.sampled_from([0.05, 0.1, 0.5, 2.0]),
)
def test_both_domains_agree(n, e, seed, iterations, epsilon):
    cost_NE = normal(n, e, seed=seed).clamp(-1, 1)
    log = sinkhorn(cost_NE, epsilon, iterations)
    product = sinkhorn(cost_NE, epsilon, iterations, log_domain=False)
    torch.testing.assert_close(product.plan_NE, log.plan_NE, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(product.potentials_E, log.potentials_E, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("log_domain", [True, False])
def test_extreme_costs_stay_finite(log_domain):
    """A whole column far from another once overflowed the exp domain's scalings into NaN."""
    column_NE = torch.zeros(64, 4)
    column_NE[:, 0], column_NE[:, 1] = 1e4, -1e4
    for cost_NE in (column_NE, normal(64, 4) * 1e4, torch.full((5, 3), 1e8)):
        cost_NE = cost_NE.clone().requires_grad_()
        plan = sinkhorn(cost_NE, 0.01, 5, log_domain=log_domain)
        assert all(t.isfinite().all() for t in (plan.plan_NE, plan.log_plan_NE, plan.potentials_E))
        torch.testing.assert_close(plan.plan_NE.sum(1), torch.ones(len(cost_NE)))
        (gradient,) = torch.autograd.grad((plan.plan_NE * normal(*cost_NE.shape, seed=1)).sum(), cost_NE)
        assert gradient.isfinite().all()


def test_ends_on_a_row_step():
    cost_NE = normal(50, 6) * 3
    plan = sinkhorn(cost_NE, 0.3, 1)
    torch.testing.assert_close(plan.plan_NE.sum(1), torch.ones(50), atol=1e-6, rtol=0)
    # After one iteration the columns are not exact: it is the rows that came last.
    assert plan.residual > 1e-3
    expected = (plan.plan_NE.sum(0) / (50 / 6) - 1).abs().max()
    torch.testing.assert_close(plan.residual, expected)


def test_residual_falls_with_iterations():
    cost_NE = normal(200, 8).clamp(-1, 1)
    residuals = [float(sinkhorn(cost_NE, 0.1, i).residual) for i in (1, 2, 4, 8)]
    assert all(later < 0.7 * earlier for earlier, later in zip(residuals, residuals[1:], strict=False)), residuals
    assert float(sinkhorn(cost_NE, 0.1, 200).residual) < 1e-5


@pytest.mark.parametrize("log_domain", [True, False])
def test_no_tokens(log_domain):
    plan = sinkhorn(torch.zeros(0, 4), 0.05, 3, log_domain=log_domain)
    assert plan.plan_NE.shape == (0, 4) and plan.residual == 0
    assert torch.equal(plan.potentials_E, torch.zeros(4))


@pytest.mark.parametrize("log_domain", [True, False])
def test_gradient_through_the_iterations_is_the_finite_difference(log_domain):
    cost_NE, probe_NE, epsilon = normal(6, 3).clamp(-1, 1), normal(6, 3, seed=1), 0.5

    def value(cost, gradient="through"):
        return (sinkhorn(cost, epsilon, 3, log_domain=log_domain, gradient=gradient).plan_NE * probe_NE).sum()

    def gradient_of(kind):
        cost = cost_NE.clone().requires_grad_()
        return torch.autograd.grad(value(cost, kind), cost)[0]

    step, numeric = 1e-2, torch.zeros(6, 3)
    for n in range(6):
        for e in range(3):
            shift = torch.zeros(6, 3)
            shift[n, e] = step
            numeric[n, e] = (value(cost_NE + shift) - value(cost_NE - shift)) / (2 * step)
    torch.testing.assert_close(gradient_of("through"), numeric, atol=2e-3, rtol=2e-2)
    stopped = gradient_of("stopped")
    assert (stopped - numeric).abs().max() > 0.02
    # With the potentials constant only the row softmax is differentiated: its gradient by hand.
    plan = sinkhorn(cost_NE, epsilon, 3).plan_NE
    by_hand = -(plan * (probe_NE - (plan * probe_NE).sum(1, keepdim=True))) / epsilon
    torch.testing.assert_close(stopped, by_hand, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_potentials_rebuild_the_plan(epsilon):
    cost_NE = normal(40, 5).clamp(-1, 1)
    plan = sinkhorn(cost_NE, epsilon, 20)
    assert abs(float(plan.potentials_E.mean())) < 1e-6
    rebuilt = torch.softmax(-cost_NE / epsilon + plan.potentials_E / epsilon, dim=-1)
    torch.testing.assert_close(rebuilt, plan.plan_NE, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plan.log_plan_NE.exp(), plan.plan_NE)
    # Planted fault: potentials in units of C/epsilon instead of the cost.
    wrong = torch.softmax(-cost_NE / epsilon + plan.potentials_E, dim=-1)
    assert epsilon == 1.0 or (wrong - plan.plan_NE).abs().max() > 1e-2


def test_two_by_two_by_hand():
    """Symmetric costs: the plan is the softmax itself, and both potentials are 0."""
    cost_NE = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    plan = sinkhorn(cost_NE, 1.0, 3)
    near = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(plan.plan_NE, torch.tensor([[near, 1 - near], [1 - near, near]]))
    torch.testing.assert_close(plan.potentials_E, torch.zeros(2), atol=1e-6, rtol=0)
