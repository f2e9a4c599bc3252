"""Directions and planes in router space: filters, paths, axes; and a model that comes back to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectra_exp.interpret.landscape import (
    axis_through_zero,
    coordinates,
    filter_normalised,
    moved,
    point,
    principal_directions,
)


def weights_of(seed: int) -> list[torch.Tensor]:
    """A matrix, a stack of matrices and a bias."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((3, 5), (2, 3, 4), (5,))]


def test_filters_are_as_long_as_the_weights_and_vectors_stay() -> None:
    weights = weights_of(0)
    weights[0][1] = 0
    direction_W = filter_normalised(weights, torch.Generator().manual_seed(1))
    direction = [piece.view_as(weight) for piece, weight in zip(direction_W.split([15, 24, 5]), weights, strict=True)]
    for own, other in zip(weights[:2], direction[:2], strict=True):
        torch.testing.assert_close(own.flatten(1).norm(dim=1), other.flatten(1).norm(dim=1))
    assert direction[0][1].abs().max() == 0 and not direction[2].any()
    assert not torch.equal(direction_W[15:39], filter_normalised(weights, torch.Generator().manual_seed(2))[15:39])


def test_a_path_in_a_plane_is_found_whole_by_its_two_directions() -> None:
    one_W, two_W = point(weights_of(1)), point(weights_of(2))
    steps = [a * one_W + b * two_W for a, b in ((5, 0), (3, 1), (1, 1), (0.5, 0.2))]
    first_W, second_W, explained = principal_directions(steps, seed=0)
    assert sum(explained) == pytest.approx(1.0) and explained[0] > explained[1] > 0
    for step_W in steps:
        along, across = coordinates(step_W, first_W, second_W)
        torch.testing.assert_close(along * first_W + across * second_W, step_W, atol=1e-4, rtol=1e-4)


def test_a_single_step_has_one_direction_and_a_random_one_across() -> None:
    step_W = point(weights_of(3))
    first_W, second_W, explained = principal_directions([step_W], seed=0)
    along, across = coordinates(step_W, first_W, second_W)
    assert abs(along) == pytest.approx(float(step_W.norm()), rel=1e-5) and across == pytest.approx(0.0, abs=1e-4)
    assert explained == (pytest.approx(1.0), 0.0)
    assert float(second_W.norm()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("values", [[3.0], [-2.0, 5.0], [-7.0, -1.0], [0.0], [1e-3]])
def test_an_axis_has_the_centre_and_spans_the_values(values: list[float]) -> None:
    axis = axis_through_zero(values, 7)
    assert len(axis) == 7 and (axis == 0).sum() == 1 and np.allclose(np.diff(axis), axis[1] - axis[0])
    assert axis[0] <= min([0.0, *values]) and axis[-1] >= max([0.0, *values])


def test_weights_come_back_to_the_last_bit_also_after_an_error() -> None:
    model = torch.nn.Linear(4, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for error in (False, True):
        try:
            with moved([model.weight], before["weight"].flatten() + 0.1):
                torch.testing.assert_close(model.weight, before["weight"] + 0.1)
                if error:
                    raise KeyError
        except KeyError:
            pass
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
