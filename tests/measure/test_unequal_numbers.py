"""Shares of k experts stay shares where tokens have more than k, or unequal numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.measure.decision import sequential_overlap
from spectra_exp.measure.floors import consistency_floor
from spectra_exp.measure.stability import agreement


def test_the_same_sets_agree_wholly_and_k_each_is_as_before():
    more_PE = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)
    assert agreement(more_PE, more_PE, 2) == 1.0
    two_PE = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)
    assert agreement(two_PE, two_PE[::-1], 2) == 0.5
    fewer_PE = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert agreement(fewer_PE, fewer_PE, 2) == 0.25


@given(seed=st.integers(0, 999), share=st.floats(0, 1), top_k=st.integers(1, 6))
def test_no_share_leaves_its_range(seed, share, top_k):
    rng = np.random.default_rng(seed)
    a_PE, b_PE = (rng.random((20, 6)) < share for _ in range(2))
    assert 0 <= agreement(a_PE, b_PE, top_k) <= 1
    assert 0 <= consistency_floor([(a_PE, b_PE)], top_k) <= 1


def test_overlap_of_neighbours_that_all_have_every_expert():
    stats = SimpleNamespace(top_k=2, num_adjacent=9, num_tokens=10, counts_E=np.full(4, 10), overlap_sum=4.0 * 9)
    assert sequential_overlap(stats) == 1.0
