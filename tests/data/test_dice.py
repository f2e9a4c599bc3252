from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.data.dice import Dice


@given(st.text(), st.integers(1, 50))
def test_draws_stay_in_range(key, bound):
    dice = Dice(key)
    assert 0 <= dice.unit() < 1
    assert 0 <= dice.below(bound) < bound
    assert -bound <= dice.between(-bound, bound) <= bound
    items = list(range(bound))
    assert dice.pick(items) in items and dice.skewed(items) in items
    assert sorted(dice.some(items, bound)) == items


def test_same_key_same_stream_other_key_other_stream():
    streams = [[dice.below(1000) for _ in range(5)] for dice in (Dice("a", 1), Dice("a", 1), Dice("a", 2))]
    assert streams[0] == streams[1] != streams[2]


def test_the_stream_is_pinned():
    dice = Dice("pinned", 0)
    assert [dice.below(1000) for _ in range(5)] == [130, 361, 996, 669, 615]


def test_skewed_follows_one_over_rank():
    dice = Dice("zipf")
    counts = Counter(dice.skewed("abcd") for _ in range(24_000))
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    for rank, item in enumerate("abcd", start=1):
        assert abs(counts[item] / 24_000 - 1 / rank / total) < 0.015
