"""Expression vectors: what each expert stands for, as seen from a token (docs/method.md 1.3).

Shapes: B sequences, S tokens, d hidden size, E experts, D router dimension.
Every source gives vectors that broadcast to [B, S, E, D], normalised over D unless it says otherwise; `raw` gives them
before that, for similarities that see lengths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from spectra_exp.foundations.collective import ALONE, Ranks
from spectra_exp.routing.state import Float32State
from spectra_exp.routing.unit_vectors import unit_vectors

# Scale of the projector's orthogonal initialisation (docs/method.md 1.3).
PROJECTOR_SCALE = 0.1
# First value of the learned scale of the cosine with expert embeddings (docs/method.md 3, no_all).
COSINE_SCALE = 10.0
# Running averages decay by this per training pass (docs/method.md 1).
DECAY = 0.99


class ExpressionSource(nn.Module, ABC):
    """Base class; `projector_weight` is the matrix that the projector orthogonality loss acts on, or None."""

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__()
        self.num_experts, self.dim = num_experts, dim

    @abstractmethod
    def raw(self, hidden_BSd: Tensor, vectors_BSED: Tensor, mask_BS: Tensor | None, ranks: Ranks = ALONE) -> Tensor:
        """Expression vectors before `finish`; they broadcast to [B, S, E, D]. Means are over the tokens of `ranks`."""

    def finish(self, raw: Tensor) -> Tensor:
        """The expression vectors out of `raw`: their directions."""
        return unit_vectors(raw)

    def forward(self, hidden_BSd: Tensor, vectors_BSED: Tensor, mask_BS: Tensor | None) -> Tensor:
        """Expression vectors that broadcast to [B, S, E, D]."""
        return self.finish(self.raw(hidden_BSd, vectors_BSED, mask_BS))

    def after_step(self) -> None:
        """Called once per optimizer step, after it."""

    def reset_parameters(self) -> None:
        """Draw initial weights from the global random state."""

    @property
    def projector_weight(self) -> Tensor | None:
        return None

    def flops_per_token(self) -> float:
        return 0.0


class Projector(ExpressionSource):
    """A linear map from the hidden state to all E expression vectors, orthogonal at the start."""

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.linear = nn.Linear(hidden_size, num_experts * dim, bias=False)

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.linear.weight, gain=PROJECTOR_SCALE)

    @property
    def projector_weight(self) -> Tensor | None:
        return self.linear.weight

    def weight(self) -> Tensor:
        """The matrix that a forward pass applies."""
        return self.linear.weight

    def raw(self, hidden_BSd, vectors_BSED, mask_BS, ranks=ALONE):
        return linear(hidden_BSd, self.weight()).unflatten(-1, (self.num_experts, self.dim))

    def flops_per_token(self) -> float:
        return 2.0 * self.linear.weight.numel()


class RunningMean(ExpressionSource):
    """The running mean of each expert's routing vectors: SPECTRA without a projector (docs/method.md 3, no_expression).

    Using the routing vectors themselves, as the draft has it, would make every cosine 1.
    """

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.mean = RunningAverage((num_experts, dim))

    def raw(self, hidden_BSd, vectors_BSED, mask_BS, ranks=ALONE):
        return self.mean.value_or(ranks.mean(real_mean(vectors_BSED.detach(), mask_BS)))[None, None]


class Embedding(ExpressionSource):
    """A learned embedding per expert, unit length times one learned scale (docs/method.md 3, no_all)."""

    def __init__(self, hidden_size: int, num_experts: int, dim: int):
        super().__init__(hidden_size, num_experts, dim)
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        self.scale = nn.Parameter(torch.tensor(COSINE_SCALE))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.constant_(self.scale, COSINE_SCALE)

    def raw(self, hidden_BSd, vectors_BSED, mask_BS, ranks=ALONE):
        return (self.scale * unit_vectors(self.weight.float()))[None, None]

    def finish(self, raw):
        return raw


class RunningAverage(Float32State):
    """An average that starts from the first value it sees, never from zero, and is saved with the model."""

    value: Tensor
    updates: Tensor

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("value", torch.zeros(shape))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def value_or(self, first: Tensor) -> Tensor:
        """The average, or `first` while nothing has been averaged yet (no host synchronisation)."""
        return torch.where(self.updates > 0, self.value, first)

    @torch.no_grad()
    def move(self, value: Tensor) -> None:
        """Take one more value in, with weight 1 - DECAY; the first counts whole."""
        self.value.copy_(torch.where(self.updates > 0, DECAY * self.value + (1 - DECAY) * value, value))
        self.updates += 1


def real_mean(values_BSED: Tensor, mask_BS: Tensor | None) -> Tensor:
    """Mean over the real tokens, [E, D]; zero when there are none."""
    if mask_BS is None:
        return values_BSED.mean(dim=(0, 1))
    weight = mask_BS[..., None, None].to(values_BSED.dtype)
    # where, not a product: padding may hold anything, NaN included.
    return torch.where(weight > 0, values_BSED, 0).sum(dim=(0, 1)) / weight.sum().clamp(min=1)


EXPRESSIONS: dict[str, type[ExpressionSource]] = {
    "projector": Projector,
    "running_mean": RunningMean,
    "embedding": Embedding,
}
