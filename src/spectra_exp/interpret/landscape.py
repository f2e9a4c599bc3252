"""Directions in the space of the routers' weights, and what moving along them does.

Letters: P points of training, W router weights in all, A and C points of the two axes of a grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from spectra_exp.training.optimizers import named_families


@dataclass(frozen=True)
class Plane:
    """Two directions and the range of each. `kind`: random or path; `explained`: share of the path's variance."""

    kind: str
    first_W: Tensor
    second_W: Tensor
    first_axis: np.ndarray
    second_axis: np.ndarray
    explained: tuple[float, float] | None = None


def router_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters of the routers, by name; shared ones stand once."""
    return dict(named_families(model)["router"])


def point(weights: Iterable[Tensor]) -> Tensor:
    """A copy of the weights as one vector [W]."""
    return parameters_to_vector(weights).detach()


def filter_normalised(weights: Iterable[Tensor], generator: torch.Generator) -> Tensor:
    """A random direction [W] whose filters (rows of matrices) are as long as those of `weights`; 0 for vectors.

    *Source:* Li et al. 2018, filter normalisation, section 4; biases and norms do not move, as there.
    """
    direction = []
    for weight in weights:
        if weight.ndim < 2:
            direction.append(torch.zeros_like(weight))
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        row_lengths = [t.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1)) for t in (weight, drawn)]
        direction.append(drawn * row_lengths[0] / row_lengths[1].clamp_min(1e-12))
    return point(direction)


def principal_directions(steps: Sequence[Tensor], seed: int) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """The two directions [W] of unit length that hold most of a path, and the share of its squared length each holds.

    steps: the path's points [W] less its end. Where they lie on one line the second direction is random and holds
    nothing. *Source:* Li et al. 2018, section 7.
    """
    matrix_PW = torch.stack(list(steps)).cpu().double()
    _, sizes, rows_PW = torch.linalg.svd(matrix_PW, full_matrices=False)
    held = (sizes**2 / (sizes**2).sum().clamp_min(1e-30)).tolist()
    first_W = rows_PW[0]
    if len(steps) > 1 and held[1] > 1e-9:
        second_W, share = rows_PW[1], held[1]
    else:
        drawn_W = torch.randn(len(first_W), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        second_W, share = drawn_W - (drawn_W @ first_W) * first_W, 0.0
        second_W = second_W / second_W.norm()
    return first_W.to(steps[0]), second_W.to(steps[0]), (held[0], share)


def coordinates(step_W: Tensor, first_W: Tensor, second_W: Tensor) -> tuple[float, float]:
    """Where a point (less the end) falls in a plane of orthogonal unit directions."""
    first, second = (float(step_W.double() @ direction_W.double()) for direction_W in (first_W, second_W))
    return first, second


def axis_through_zero(values: Sequence[float] | np.ndarray, points: int) -> np.ndarray:
    """`points` evenly spaced places, 0 exactly one of them, over the values and 0 with room around them.

    At least 3 points. Values that are all 0 give the range -1 to 1.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.25 * (high - low) or 1.0
    step = (high - low + 2 * room) / (points - 1)
    zero = round((room - low) / step)
    return (np.arange(points) - zero) * step


@contextmanager
def moved(parameters: Sequence[nn.Parameter], point_W: Tensor) -> Iterator[None]:
    """A block in which the parameters have these values; after it the former ones, to the last bit."""
    before_W = point(parameters)
    try:
        vector_to_parameters(point_W, parameters)
        yield
    finally:
        vector_to_parameters(before_W, parameters)
