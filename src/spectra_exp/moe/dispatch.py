"""Which token goes to which expert, as a list sorted by expert, and what the experts made of it.

Shapes: N real tokens, A assignments (token, expert), E experts, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    """outputs_Ad: each assignment's output before its weight; zero for entries that are none."""

    outputs_Ad: Tensor
    assignments: Assignments

    @torch.no_grad()
    def sums_Ed(self) -> Tensor:
        """Each expert's summed output [E, d], float32; zeros for one without tokens."""
        at = self.assignments
        zeros_Ed = self.outputs_Ad.new_zeros(len(at.counts_E), self.outputs_Ad.shape[1], dtype=torch.float32)
        return zeros_Ed.index_add_(0, at.expert_A, self.outputs_Ad.float())


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
