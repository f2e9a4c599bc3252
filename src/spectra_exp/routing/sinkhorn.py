"""Entropic optimal transport between tokens and experts: rows sum to 1, columns to N/E.

Shapes: N tokens, E experts. All arithmetic is float32.
*Source:* Cuturi 2013 (Sinkhorn distances); paper 5.1, METHOD 1.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# exp(50) keeps float32 products of N terms finite (METHOD 1.7).
EXP_CLAMP = 50.0


@dataclass
class Plan:
    """A transport plan and what is known of it.

    plan_NE: rows sum to 1. potentials_E: the columns' potentials in the units of the cost, mean zero.
    residual: largest relative error of a column sum.
    """

    plan_NE: Tensor
    potentials_E: Tensor
    residual: Tensor


def sinkhorn(
    cost_NE: Tensor, epsilon: float, iterations: int, *, log_domain: bool = True, gradient: str = "through"
) -> Plan:
    """The plan proportional to exp(-cost/epsilon) after `iterations` column-then-row scalings of the row softmax.

    `gradient`: "through" the iterations, or "stopped" (the column potentials are constants and only the last
    row step is differentiated). Zero tokens give an empty plan.
    """
    scale = log_scaling if log_domain else exp_scaling
    kernel_NE = -cost_NE.float() / epsilon
    if gradient == "stopped":
        with torch.no_grad():
            log_v_E = scale(kernel_NE, iterations)
    else:
        log_v_E = scale(kernel_NE, iterations)
    plan_NE = torch.softmax(kernel_NE + log_v_E, dim=-1)
    potentials_E = (epsilon * (log_v_E - log_v_E.mean())).detach()
    return Plan(plan_NE, potentials_E, column_residual(plan_NE.detach()))


def log_scaling(kernel_NE: Tensor, iterations: int) -> Tensor:
    """Log column scalings [E] after `iterations`, by logsumexp; cannot over- or underflow."""
    log_target = math.log(max(kernel_NE.shape[0], 1) / kernel_NE.shape[1])
    log_v_E = kernel_NE.new_zeros(kernel_NE.shape[1])
    log_u_N1 = -torch.logsumexp(kernel_NE, dim=1, keepdim=True)
    for _ in range(iterations):
        log_v_E = log_target - torch.logsumexp(kernel_NE + log_u_N1, dim=0)
        log_u_N1 = -torch.logsumexp(kernel_NE + log_v_E, dim=1, keepdim=True)
    return log_v_E


def exp_scaling(kernel_NE: Tensor, iterations: int) -> Tensor:
    """Log column scalings [E] after `iterations`, by products, with the exponent clamped to +-50."""
    target = kernel_NE.shape[0] / kernel_NE.shape[1]
    k_NE = kernel_NE.clamp(-EXP_CLAMP, EXP_CLAMP).exp()
    v_E = k_NE.new_ones(k_NE.shape[1])
    u_N = 1.0 / k_NE.sum(dim=1)
    for _ in range(iterations):
        v_E = target / (k_NE.T @ u_N)
        u_N = 1.0 / (k_NE @ v_E)
    return v_E.log()


def column_residual(plan_NE: Tensor) -> Tensor:
    """Largest relative error of a column sum against N/E; 0 when there are no tokens."""
    if plan_NE.shape[0] == 0:
        return plan_NE.new_zeros(())
    target = plan_NE.shape[0] / plan_NE.shape[1]
    return (plan_NE.sum(dim=0) / target - 1).abs().max()
