"""What the ranks of one data-parallel training pass share; a process alone computes and sends nothing here.

Shapes: N real tokens on this rank, E experts. Under data parallelism each rank calls these in the same order, in the
backward pass too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spectra_exp.foundations.errors import SpectraError


class RankWithoutTokens(SpectraError):
    """Some ranks have real tokens in a micro-batch and others have none."""


class Ranks:
    """Who takes part in a pass: this process alone, whose own figures are the global batch's."""

    def tokens(self, values_Nx: Tensor) -> int:
        """Rows of `values_Nx` over all ranks; it has one row for each real token of this rank."""
        return values_Nx.shape[0]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks; its gradient is the sum of the ranks' gradients."""
        return values

    def mean(self, own_mean: Tensor) -> Tensor:
        """Mean over the global batch's tokens out of each rank's mean over its own."""
        return own_mean

    def rows(self, values_Nx: Tensor) -> Tensor:
        """The rows of all ranks' tokens, without gradient, in the order of ranks."""
        return values_Nx

    def logsumexp(self, values_NE: Tensor) -> Tensor:
        """Logsumexp over the global batch's tokens, [E]."""
        return torch.logsumexp(values_NE, dim=0)


ALONE = Ranks()


@dataclass(frozen=True)
class Group(Ranks):
    """All ranks of the process group. own, total: real tokens of this rank and of all in this pass."""

    own: int
    total: int

    def tokens(self, values_Nx: Tensor) -> int:
        return self.total

    def sum(self, values: Tensor) -> Tensor:
        return _Sum.apply(values)

    def mean(self, own_mean: Tensor) -> Tensor:
        return self.sum(own_mean * (self.own / max(self.total, 1)))

    def rows(self, values_Nx: Tensor) -> Tensor:
        return all_rows(values_Nx)

    def logsumexp(self, values_NE: Tensor) -> Tensor:
        # A rank's slot holds its own value and the others zero, so that one sum brings all together.
        slots_RE = [values_NE.new_zeros(values_NE.shape[1]) for _ in range(dist.get_world_size())]
        slots_RE[dist.get_rank()] = torch.logsumexp(values_NE, dim=0)
        return torch.logsumexp(self.sum(torch.stack(slots_RE)), dim=0)


class _Sum(torch.autograd.Function):
    """Sum over ranks whose gradient is summed too: the losses of all ranks depend on what each rank put in."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def many_ranks() -> bool:
    """Whether a process group of more than one rank is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def join(token_ids_BS: Tensor, mask_BS: Tensor | None) -> Ranks:
    """The ranks of one training pass over these tokens: ALONE, or the process group when one is up.

    Raises RankWithoutTokens, on every rank, when only some have real tokens: a rank without any has no backward pass
    through the routers for the others to wait for.
    """
    if not many_ranks():
        return ALONE
    own = token_ids_BS.numel() if mask_BS is None else int(mask_BS.sum())
    # How many tokens, and how many ranks with any.
    total, busy = _summed(torch.tensor([own, own > 0], device=token_ids_BS.device)).tolist()
    if 0 < busy < dist.get_world_size():
        raise RankWithoutTokens(
            f"{dist.get_world_size() - busy} of {dist.get_world_size()} ranks have only padding in this micro-batch; "
            "give every rank at least one real token"
        )
    return Group(own, total)


@torch.no_grad()
def total_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over ranks, without gradient; the tensor itself in a process alone."""
    return _summed(values) if many_ranks() else values


@torch.no_grad()
def mean_over_ranks(values: Tensor) -> Tensor:
    """The ranks' mean of a tensor, without gradient; the tensor itself in a process alone."""
    return _summed(values) / dist.get_world_size() if many_ranks() else values


def share_of_labels(counted_BS: Tensor) -> float:
    """What a rank's mean over its labels weighs in the ranks' mean for that to be the mean over all labels."""
    own = counted_BS.sum().float()
    return float(own / mean_over_ranks(own).clamp(min=1)) if many_ranks() else 1.0


@torch.no_grad()
def max_over_ranks(values: Tensor) -> Tensor:
    """The largest over ranks of each element; the tensor itself in a process alone."""
    if not many_ranks():
        return values
    largest = values.detach().clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


@torch.no_grad()
def rows_of_all_ranks(rows_Bx: Tensor) -> Tensor:
    """The ranks' rows end to end in the order of ranks, of which each has the same number."""
    if not many_ranks():
        return rows_Bx
    found = [torch.empty_like(rows_Bx) for _ in range(dist.get_world_size())]
    dist.all_gather(found, rows_Bx.contiguous())
    return torch.cat(found)


@torch.no_grad()
def all_rows(rows_Nx: Tensor) -> Tensor:
    """The ranks' rows end to end in the order of ranks, of which each may have another number."""
    if not many_ranks():
        return rows_Nx
    numbers = rows_of_all_ranks(torch.tensor([len(rows_Nx)], device=rows_Nx.device)).tolist()
    padded_1Nx = rows_Nx.new_zeros(1, max(numbers), *rows_Nx.shape[1:])
    padded_1Nx[0, : len(rows_Nx)] = rows_Nx
    return torch.cat([part[:number] for part, number in zip(rows_of_all_ranks(padded_1Nx), numbers, strict=True)])


def of_every_rank(value: Any) -> list[Any]:
    """Each rank's value in the order of ranks, on every rank; in a process alone its own. Plain values and arrays."""
    if not many_ranks():
        return [value]
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def own_rank() -> int:
    """This process's place among the ranks; 0 in a process alone."""
    return dist.get_rank() if many_ranks() else 0


def from_first_rank(make: Callable[[], Any]) -> Any:
    """What `make()` returns on the first rank, on every rank; it runs there alone. Plain values only."""
    if not many_ranks():
        return make()
    value = [make() if own_rank() == 0 else None]
    dist.broadcast_object_list(value)
    return value[0]


def gathered(tensor: Tensor) -> Tensor:
    """The tensor whole; of one that FSDP holds in parts a copy, for which all ranks call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(parameter: Tensor) -> Tensor:
    """All values of a parameter, detached; of one that ranks hold in parts a copy, for which all ranks call this."""
    if not hasattr(parameter, "ds_id"):
        return gathered(parameter.detach())
    from deepspeed.utils import safe_get_full_fp32_param

    # Gathering in place would leave small parameters, which DeepSpeed keeps whole, in parts.
    return safe_get_full_fp32_param(parameter)
