from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.statistics.estimate import places

_values = st.lists(st.integers(-300, 300).map(lambda v: v / 100), max_size=20)


@given(_values)
def test_places_are_those_of_the_exact_values(values: list[float]) -> None:
    exact = {value: place for place, value in enumerate(sorted(set(values)))}
    shifted = np.array([(value + 7.3) - 7.3 for value in values])  # rounds, each value in its own way
    assert places(shifted, 10.3).tolist() == [exact[value] for value in values]


def test_places_keep_the_shape_and_tell_small_steps_apart() -> None:
    assert places(np.array([[3.0, 1.0], [3.0 + 1e-11, 2.0]]), 3.0).tolist() == [[2, 0], [3, 1]]
    # Planted fault: rounding to a grid parts values that are equal but lie on either side of a step.
    equal = np.array([3.5e-12, 3.4999e-12])
    assert np.ptp(np.rint(equal / 1e-12)) == 1 and np.ptp(places(equal, 1.0)) == 0
    assert places(np.empty((0, 3)), 1.0).shape == (0, 3)
