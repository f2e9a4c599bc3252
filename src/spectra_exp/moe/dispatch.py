"""Which token goes to which expert, as a list sorted by expert, and what the experts made of it.

Shapes: N real tokens, A assignments (token, expert), E experts, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Assignments:
    """Assignments sorted by expert, then by token. counts_E: how many each expert has.

    real_A: false for entries that only fill the list up, all at its end; None when there are none.
    """

    token_A: Tensor
    expert_A: Tensor
    counts_E: Tensor
    real_A: Tensor | None = None


@dataclass(frozen=True)
class ExpertRows:
    """outputs_Ad: each assignment's output before its weight; what is said for entries that are none means nothing."""

    outputs_Ad: Tensor
    assignments: Assignments

    @torch.no_grad()
    def sums_Ed(self) -> Tensor:
        """Each expert's summed output [E, d], float32; zeros for one without tokens."""
        at = self.assignments
        zeros_Ed = self.outputs_Ad.new_zeros(len(at.counts_E), self.outputs_Ad.shape[1], dtype=torch.float32)
        rows_Ad = self.outputs_Ad.float()
        if at.real_A is not None:
            rows_Ad = rows_Ad.masked_fill(~at.real_A[:, None], 0)
        return zeros_Ed.index_add_(0, at.expert_A, rows_Ad)


def sorted_assignments(chosen_NE: Tensor) -> Assignments:
    """The pairs chosen, bool [N, E]; their number is asked of the device."""
    # Row-major nonzero of the transpose lists them by expert, then by token.
    expert_A, token_A = chosen_NE.T.nonzero(as_tuple=True)
    return Assignments(token_A, expert_A, chosen_NE.sum(dim=0))


def sorted_on_device(chosen_NE: Tensor, most: int | None) -> Assignments:
    """The same, filled up to `most` entries so that nothing is asked of the device; asked when that is None."""
    if most is None:
        return sorted_assignments(chosen_NE)
    N, _ = chosen_NE.shape
    by_expert = chosen_NE.T.flatten()
    order_A = torch.argsort(~by_expert, stable=True)[: min(most, by_expert.numel())]
    return Assignments(order_A % N, order_A // N, chosen_NE.sum(dim=0), by_expert[order_A])


class WeightedSum(torch.autograd.Function):
    """Each token's sum [N, d] of its assignments' outputs [A, d] times their weights [A].

    By hand for two passes over [A, d] fewer than the same operations leave to autograd.
    """

    @staticmethod
    def forward(ctx: Any, outputs_Ad: Tensor, weight_A: Tensor, token_A: Tensor, tokens: int) -> Tensor:
        ctx.save_for_backward(outputs_Ad, weight_A, token_A)
        sums_Nd = outputs_Ad.new_zeros(tokens, outputs_Ad.shape[1])
        return sums_Nd.index_add_(0, token_A, outputs_Ad * weight_A[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming_Nd: Tensor) -> tuple[Tensor, Tensor, None, None]:
        outputs_Ad, weight_A, token_A = ctx.saved_tensors
        incoming_Ad = incoming_Nd.index_select(0, token_A)
        to_weight_A = torch.bmm(incoming_Ad[:, None], outputs_Ad[:, :, None]).flatten()
        return incoming_Ad.mul_(weight_A[:, None]), to_weight_A, None, None
