"""Directions in the space of the routers' weights, and what moving along them does.

Letters: P points of training, W router weights in all, A and C points of the two axes of a grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from spectra_exp.training.optimizers import named_families

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Plane:
    """Two directions and the range of each. `kind`: random or path; `explained`: share of the path's variance."""

    kind: str
    first: Weights
    second: Weights
    first_axis: np.ndarray
    second_axis: np.ndarray
    explained: tuple[float, float] | None = None


def router_weights(model: nn.Module) -> Weights:
    """A copy of the trained router weights, by name; shared ones stand once."""
    return {name: parameter.detach().clone() for name, parameter in named_families(model)["router"]}


def filter_normalised(weights: Mapping[str, Tensor], generator: torch.Generator) -> Weights:
    """A random direction whose filters (rows of matrices) are as long as those of `weights`; 0 for vectors.

    *Source:* Li et al. 2018, filter normalisation, section 4; biases and norms do not move, as there.
    """
    direction = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        row_lengths = [t.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1)) for t in (weight, drawn)]
        direction[name] = drawn * row_lengths[0] / row_lengths[1].clamp_min(1e-12)
    return direction


def principal_directions(steps: Sequence[Weights], seed: int) -> tuple[Weights, Weights, tuple[float, float]]:
    """The two directions of unit length that hold most of a path, and the share of its squared length each holds.

    steps: the path's points less its end. Where they lie on one line the second direction is random and holds nothing.
    *Source:* Li et al. 2018, section 7.
    """
    matrix_PW = torch.stack([flat(step) for step in steps]).double()
    _, sizes, rows_PW = torch.linalg.svd(matrix_PW, full_matrices=False)
    held = (sizes**2 / (sizes**2).sum().clamp_min(1e-30)).tolist()
    first_W = rows_PW[0]
    if len(steps) > 1 and held[1] > 1e-9:
        second_W, share = rows_PW[1], held[1]
    else:
        drawn_W = torch.randn(len(first_W), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        second_W, share = drawn_W - (drawn_W @ first_W) * first_W, 0.0
        second_W = second_W / second_W.norm()
    like = steps[0]
    return unflat(first_W, like), unflat(second_W, like), (held[0], share)


def coordinates(step: Mapping[str, Tensor], plane: Plane) -> tuple[float, float]:
    """Where a point (less the end) falls in a plane of orthogonal unit directions."""
    return tuple(float(flat(step).double() @ flat(direction).double()) for direction in (plane.first, plane.second))


def axis_through_zero(values: Sequence[float], points: int) -> np.ndarray:
    """`points` evenly spaced places, 0 exactly one of them, over the values and 0 with room around them.

    At least 3 points. Values that are all 0 give the range -1 to 1.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.25 * (high - low) or 1.0
    step = (high - low + 2 * room) / (points - 1)
    zero = round((room - low) / step)
    return (np.arange(points) - zero) * step


@contextmanager
def moved(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """A block in which the named parameters have these values; after it the former ones, to the last bit."""
    named = dict(model.named_parameters())
    before = {name: named[name].detach().clone() for name in weights}
    try:
        _set(named, weights)
        yield
    finally:
        _set(named, before)


def at(centre: Mapping[str, Tensor], plane: Plane, first: float, second: float) -> Weights:
    """The weights at a place of a plane."""
    return {name: centre[name] + first * plane.first[name] + second * plane.second[name] for name in centre}


def less(weights: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Weights:
    """The difference of two points."""
    return {name: weights[name] - other[name] for name in weights}


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    """All weights as one vector [W], in the order of their names' entry."""
    return torch.cat([weight.flatten().float().cpu() for weight in weights.values()])


def unflat(vector_W: Tensor, like: Mapping[str, Tensor]) -> Weights:
    """The vector as weights of the shapes of `like`."""
    pieces = vector_W.split([weight.numel() for weight in like.values()])
    named = zip(like.items(), pieces, strict=True)
    return {name: piece.view(weight.shape).to(weight) for (name, weight), piece in named}


@torch.no_grad()
def _set(named: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        named[name].copy_(weight)
