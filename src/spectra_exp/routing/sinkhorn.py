"""Entropic optimal transport between tokens and experts: rows sum to 1, columns to N/E.

Shapes: N tokens, E experts. All arithmetic is float32.
*Source:* Cuturi 2013 (Sinkhorn distances); paper 5.1, docs/method.md 1.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_exp.foundations.collective import ALONE, Ranks
from spectra_exp.foundations.kernels import PLAIN, TRITON

# Exponents beyond this, counted from each row's largest, are cut in the exp domain: float32 then stays finite.
EXP_CLAMP = 50.0


@dataclass
class Plan:
    """A transport plan and what is known of it.

    plan_NE: rows sum to 1. log_plan_NE: its logarithm, which still ranks what underflows to 0 in the plan.
    potentials_E: the columns' potentials in the units of the cost, mean zero. residual: largest relative error of a
    column sum.
    """

    plan_NE: Tensor
    log_plan_NE: Tensor
    potentials_E: Tensor
    residual: Tensor


def sinkhorn(
    cost_NE: Tensor,
    epsilon: float | Tensor,
    iterations: int,
    *,
    log_domain: bool = True,
    gradient: str = "through",
    ranks: Ranks = ALONE,
    kernel: str | None = PLAIN,
) -> Plan:
    """The plan proportional to exp(-cost/epsilon) after `iterations` column-then-row scalings of the row softmax.

    `epsilon`: > 0, one number or [N or 1, E or 1]. `gradient`: "through" the iterations, or "stopped" (the column
    potentials are constants and only the last row step is differentiated). `ranks`: whose tokens the columns sum over;
    N is then theirs, and the plan holds this rank's rows. Zero tokens give an empty plan. `kernel`: plain, or triton on
    a device that has it, for the iterations of a process alone in the log domain.
    """
    kernel_NE = -cost_NE.float() / epsilon
    if not log_domain:
        # A shift of a row is taken up by its scaling, so clamping from the row's largest costs the least.
        kernel_NE = (kernel_NE - kernel_NE.detach().amax(dim=1, keepdim=True)).clamp(min=-EXP_CLAMP)
    scale: Callable[[Tensor, int, Ranks], Tensor] = log_scaling if log_domain else exp_scaling
    if kernel == TRITON and log_domain and ranks is ALONE:
        scale = _fused_scaling
    if gradient == "stopped":
        with torch.no_grad():
            log_v_E = scale(kernel_NE, iterations, ranks)
    else:
        log_v_E = scale(kernel_NE, iterations, ranks)
    # Of epsilons that differ between tokens, the mean: potentials belong to experts.
    unit = ranks.mean(epsilon.detach().mean(dim=0)) if isinstance(epsilon, Tensor) else epsilon
    potentials_E = (unit * (log_v_E - log_v_E.mean())).detach()
    return plan_of(kernel_NE + log_v_E, potentials_E, ranks)


def plan_of(logits_NE: Tensor, potentials_E: Tensor, ranks: Ranks = ALONE) -> Plan:
    """The plan whose rows are the softmax of `logits_NE`."""
    log_plan_NE = torch.log_softmax(logits_NE, dim=-1)
    plan_NE = log_plan_NE.exp()
    return Plan(plan_NE, log_plan_NE, potentials_E, column_residual(plan_NE.detach(), ranks))


def log_scaling(kernel_NE: Tensor, iterations: int, ranks: Ranks = ALONE) -> Tensor:
    """Log column scalings [E] after `iterations`, by logsumexp; cannot over- or underflow. Zeros without tokens."""
    log_v_E = kernel_NE.new_zeros(kernel_NE.shape[1])
    tokens = ranks.tokens(kernel_NE)
    if tokens == 0:
        return log_v_E
    log_target = math.log(tokens / kernel_NE.shape[1])
    log_u_N1 = -torch.logsumexp(kernel_NE, dim=1, keepdim=True)
    for _ in range(iterations):
        log_v_E = log_target - ranks.logsumexp(kernel_NE + log_u_N1)
        log_u_N1 = -torch.logsumexp(kernel_NE + log_v_E, dim=1, keepdim=True)
    return log_v_E


def _fused_scaling(kernel_NE: Tensor, iterations: int, ranks: Ranks) -> Tensor:
    """`log_scaling` of the tokens of this process, by a few kernels."""
    if len(kernel_NE) == 0:
        return log_scaling(kernel_NE, iterations, ranks)
    from spectra_exp.routing.fused.column_scaling import column_scaling

    return column_scaling(kernel_NE, iterations)


def exp_scaling(kernel_NE: Tensor, iterations: int, ranks: Ranks = ALONE) -> Tensor:
    """Log column scalings [E] after `iterations`, by products of exp(kernel). Zeros without tokens."""
    tokens = ranks.tokens(kernel_NE)
    if tokens == 0:
        return kernel_NE.new_zeros(kernel_NE.shape[1])
    log_target = math.log(tokens / kernel_NE.shape[1])
    k_NE = kernel_NE.exp()
    log_v_E = kernel_NE.new_zeros(kernel_NE.shape[1])
    u_N = 1.0 / k_NE.sum(dim=1)
    for _ in range(iterations):
        # exp(-log x) rather than 1/x, whose gradient squares a large reciprocal.
        log_v_E = log_target - ranks.sum(k_NE.T @ u_N).log()
        u_N = torch.exp(-(k_NE @ log_v_E.exp()).log())
    return log_v_E


def column_residual(plan_NE: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Largest relative error of a column sum against N/E; 0 when there are no tokens."""
    tokens = ranks.tokens(plan_NE)
    if tokens == 0:
        return plan_NE.new_zeros(())
    target = tokens / plan_NE.shape[1]
    return (ranks.sum(plan_NE.sum(dim=0)) / target - 1).abs().max()
