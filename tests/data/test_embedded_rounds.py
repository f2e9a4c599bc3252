"""The pair of domains that a function of the current token cannot tell apart, and one with state can."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_exp.data import embedded_rounds
from spectra_exp.data.dice import Dice
from spectra_exp.data.embedded_rounds import PLAYERS, ROUNDS_LAG, ROUNDS_PAIR, rounds_calls
from spectra_exp.data.packing import tokenise
from spectra_exp.data.sources.embedded import EmbeddedData
from spectra_exp.data.tokenizer import train_bpe

SEAT = {player: seat for seat, player in enumerate(PLAYERS)}


def games(split: str, count: int = 300, length: int = 120) -> list[tuple[np.ndarray, int]]:
    """Calls as seats and the direction (0 forward, 1 backward), as the generator makes the pair."""
    pairs = []
    for index in range(count):
        seats = np.array([SEAT[call] for call in rounds_calls(Dice(split, index), length)])
        pairs += [(seats, 0), (seats[::-1], 1)]
    return pairs


def accuracy(key, states: int, *, carry: bool = False) -> float:
    """How often the more likely direction is right per call, by `key(seats) -> codes`, fitted on other games.

    With `carry`, the evidence of the calls so far in the document is added up.
    """
    counts = np.ones((states, 2))
    for seats, direction in games("fit"):
        np.add.at(counts, (key(seats), direction), 1)
    odds = np.diff(np.log(counts / counts.sum(0)), axis=1)[:, 0]
    right = []
    for seats, direction in games("score"):
        evidence = odds[key(seats)]
        evidence = np.cumsum(evidence) if carry else evidence
        right.append(np.where(evidence == 0, 0.5, (evidence > 0) == direction))
    return float(np.concatenate(right).mean())


def pair_key(lag: int):
    return lambda seats: seats[:-lag] * len(PLAYERS) + seats[lag:]


def test_a_function_of_the_current_call_is_at_chance():
    assert accuracy(lambda seats: seats, len(PLAYERS)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("lag", range(1, ROUNDS_LAG))
def test_neighbouring_calls_are_at_chance(lag):
    assert accuracy(pair_key(lag), len(PLAYERS) ** 2) == pytest.approx(0.5, abs=0.015)


def test_the_call_three_before_tells_and_state_tells_almost_surely():
    assert accuracy(pair_key(ROUNDS_LAG), len(PLAYERS) ** 2) > 0.85
    assert accuracy(pair_key(ROUNDS_LAG), len(PLAYERS) ** 2, carry=True) > 0.97


def test_a_shorter_lag_would_be_caught(monkeypatch):
    # Planted fault: adjacent calls give the direction away.
    monkeypatch.setattr(embedded_rounds, "ROUNDS_LAG", 1)
    assert accuracy(pair_key(1), len(PLAYERS) ** 2) > 0.85


def test_a_skewed_direction_would_be_caught(monkeypatch):
    # Planted fault: backward games avoid the first players, which the current call alone gives away.
    honest = games("fit") + games("score")
    skewed = [(np.maximum(seats, 4) if direction else seats, direction) for seats, direction in honest]
    monkeypatch.setitem(globals(), "games", lambda split: skewed)
    assert accuracy(lambda seats: seats, len(PLAYERS)) > 0.55


def test_both_domains_have_exactly_the_same_tokens():
    splits = EmbeddedData(train_words=70_000, validation_words=14_000).read_splits()
    tokenizer = train_bpe([d.text for d in splits.train], 2048)
    for documents in (splits.train, splits.validation):
        counts = []
        for name in ROUNDS_PAIR:
            stream = tokenise(
                tokenizer,
                [d for d in documents if d.domain == name],
                end_token_id=0,
                domains=list(ROUNDS_PAIR),
            )
            counts.append(np.bincount(stream.tokens, minlength=2048))
        assert counts[0].sum() > 1000
        np.testing.assert_array_equal(counts[0], counts[1])


def test_calls_are_uniform_and_each_is_one_token():
    counts = np.bincount(np.concatenate([seats for seats, _ in games("uniform")]), minlength=len(PLAYERS))
    assert counts.min() / counts.max() > 0.85
    splits = EmbeddedData(train_words=70_000).read_splits()
    tokenizer = train_bpe([d.text for d in splits.train], 2048)
    assert all(len(tokenizer.encode(f" {player}").ids) == 1 for player in PLAYERS)
