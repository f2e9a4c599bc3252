"""Directions and planes in router space: filters, paths, axes; and a model that comes back to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectra_exp.interpret.landscape import (
    Plane,
    at,
    axis_through_zero,
    coordinates,
    filter_normalised,
    less,
    moved,
    principal_directions,
)


def weights_of(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (3, 5), "stack": (2, 3, 4), "bias": (5,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_filters_are_as_long_as_the_weights_and_vectors_stay() -> None:
    weights = weights_of(0)
    weights["matrix"][1] = 0
    direction = filter_normalised(weights, torch.Generator().manual_seed(1))
    for name in ("matrix", "stack"):
        lengths = [t[name].flatten(1).norm(dim=1) for t in (weights, direction)]
        torch.testing.assert_close(*lengths)
    assert direction["matrix"][1].abs().max() == 0 and not direction["bias"].any()
    other = filter_normalised(weights, torch.Generator().manual_seed(2))
    assert not torch.equal(direction["stack"], other["stack"])


def test_a_path_in_a_plane_is_found_whole_by_its_two_directions() -> None:
    one, two = weights_of(1), weights_of(2)
    steps = [{name: a * one[name] + b * two[name] for name in one} for a, b in ((5, 0), (3, 1), (1, 1), (0.5, 0.2))]
    first, second, explained = principal_directions(steps, seed=0)
    assert sum(explained) == pytest.approx(1.0) and explained[0] > explained[1] > 0
    plane = Plane("path", first, second, np.zeros(1), np.zeros(1))
    for step in steps:
        rebuilt = at({name: torch.zeros_like(w) for name, w in one.items()}, plane, *coordinates(step, plane))
        for name in step:
            torch.testing.assert_close(rebuilt[name], step[name], atol=1e-4, rtol=1e-4)


def test_a_single_step_has_one_direction_and_a_random_one_across() -> None:
    step = weights_of(3)
    first, second, explained = principal_directions([step], seed=0)
    plane = Plane("path", first, second, np.zeros(1), np.zeros(1))
    length = torch.cat([w.flatten() for w in step.values()]).norm()
    along, across = coordinates(step, plane)
    assert abs(along) == pytest.approx(float(length), rel=1e-5) and across == pytest.approx(0.0, abs=1e-4)
    assert explained == (pytest.approx(1.0), 0.0)
    assert sum(float((w**2).sum()) for w in second.values()) == pytest.approx(1.0, rel=1e-5)


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
            with moved(model, {"weight": before["weight"] + 0.1}):
                torch.testing.assert_close(model.weight, before["weight"] + 0.1)
                if error:
                    raise KeyError
        except KeyError:
            pass
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert less(before, before)["weight"].abs().max() == 0
