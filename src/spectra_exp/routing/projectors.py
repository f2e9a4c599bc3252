"""Expression projectors by how they are kept orthogonal (docs/method.md 1.3, `router.orthogonalization`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_exp.routing.expression import EXPRESSIONS, PROJECTOR_SCALE, ExpressionSource, Projector
from spectra_exp.routing.orthogonality import newton_schulz, polar_factor


class PeriodicProjector(Projector):
    """Orthogonal at the start and made so again every `every` optimizer steps: the paper's "precomputed"."""

    steps: Tensor

    def __init__(self, hidden_size: int, num_experts: int, dim: int, every: int):
        super().__init__(hidden_size, num_experts, dim)
        self.every = every
        # Saved with the model, so that a resumed run keeps the beat.
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.steps.zero_()

    @torch.no_grad()
    def after_step(self) -> None:
        self.steps += 1
        if int(self.steps) % self.every == 0:
            self.linear.weight.copy_(polar_factor(self.linear.weight))


class NewtonSchulzProjector(Projector):
    """Orthogonal in each forward pass, times the initial scale; the gradient goes through the iteration.

    The stored matrix is free, so an orthogonality loss on it would do nothing: there is none.
    """

    @property
    def projector_weight(self) -> None:
        return None

    def weight(self) -> Tensor:
        return PROJECTOR_SCALE * newton_schulz(self.linear.weight)


class PlainProjector(Projector):
    """Normal weights, each entry as large as in the orthogonal start; nothing keeps them orthogonal."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.linear.weight, std=PROJECTOR_SCALE / max(self.linear.weight.shape) ** 0.5)


ORTHOGONALIZATIONS = ("init", "periodic", "newton_schulz", "none")


def make_expression(
    name: str, orthogonalization: str, every: int, hidden_size: int, num_experts: int, dim: int
) -> ExpressionSource:
    """The expression source `name`; a projector under the given orthogonalization."""
    shape = (hidden_size, num_experts, dim)
    if name != "projector":
        return EXPRESSIONS[name](*shape)
    match orthogonalization:
        case "periodic":
            return PeriodicProjector(*shape, every)
        case "newton_schulz":
            return NewtonSchulzProjector(*shape)
        case "none":
            return PlainProjector(*shape)
    return Projector(*shape)
