"""Switch latency on hand-made routings: late by so many tokens, exponential, none, and no difference at all."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_exp.interpret.boundaries import (
    HALVES,
    Pairs,
    TextPiece,
    carry_over_difference,
    half_way,
    join_pairs,
    latency,
    lean_to,
    overlap,
    pieces,
    profiles,
    same_experts,
)
from spectra_exp.interpret.trace import HeldOut

HALF, PAIRS = 32, 40
NOISE = np.random.default_rng(0).normal(scale=0.05, size=(2, PAIRS, 2 * HALF))


def leans(curve_H: np.ndarray, level: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Joined texts whose lean is -level before the boundary and follows `curve_H` (0..1 of the way) after it."""
    switch_T = np.concatenate([np.full(HALF, -level), level * (2 * curve_H - 1)])
    control_T = np.full(2 * HALF, level)
    return switch_T + NOISE[0], control_T + NOISE[1]


def late_by(tokens: int) -> np.ndarray:
    return (np.arange(HALF) >= tokens).astype(float)


@pytest.mark.parametrize("tokens", [0, 1, 5, 12])
def test_a_switch_late_by_so_many_tokens_has_that_latency(tokens: int) -> None:
    found = latency(*leans(late_by(tokens)), seed=0)
    assert found.gap.mean == pytest.approx(2.0, abs=0.05)
    for delay in (found.carry_over, found.delay):
        assert delay.mean == pytest.approx(tokens, abs=0.2) and delay.low < tokens + 0.15 and delay.high > tokens - 0.15
    assert found.half_way == pytest.approx(tokens, abs=1)


def test_an_exponential_switch_has_its_time_constant() -> None:
    found = latency(*leans(1 - np.exp(-(np.arange(HALF) + 0.5) / 3.0)), seed=0)
    assert found.carry_over.mean == pytest.approx(3.0, abs=0.2)


def test_what_openings_of_documents_do_anyway_is_no_carry_over() -> None:
    """Openings lean the other way for five tokens whatever came before: the delay counts that, carry-over does not."""
    switch_QT, _ = leans(late_by(5))
    control_QT = switch_QT.copy()
    control_QT[:, :HALF] = 1.0
    found = latency(switch_QT, control_QT, seed=0)
    assert found.carry_over.mean == 0.0 and found.delay.mean == pytest.approx(5, abs=0.2)


def test_routing_that_does_not_know_the_domains_has_no_latency() -> None:
    found = latency(NOISE[0], NOISE[1], seed=0)
    assert found.gap.low < 0 < found.gap.high
    assert found.carry_over is None and found.delay is None and found.half_way is None


@pytest.mark.parametrize("tokens", [0, 3, 5])
def test_a_switch_late_by_a_few_tokens_is_over_and_exact(tokens: int) -> None:
    switch_QT, control_QT = leans(late_by(tokens))
    found = latency(switch_QT - NOISE[0], control_QT - NOISE[1], seed=0)
    assert found.carry_over.mean == pytest.approx(tokens) and found.half_way == tokens
    assert found.over and found.left.mean == 0 and found.window == HALF


@pytest.mark.parametrize("tokens", [HALF - 8, HALF, HALF + 10])
def test_a_switch_later_than_the_window_is_not_over(tokens: int) -> None:
    found = latency(*leans(late_by(tokens)), seed=0)
    assert not found.over and found.left.low > 0.4
    assert (found.half_way is None) == (tokens >= HALF)
    assert latency(*leans(1 - np.exp(-(np.arange(HALF) + 0.5) / 3.0)), seed=0).over


def test_a_gap_that_never_closes_is_flagged_and_its_carry_over_a_bound() -> None:
    """Three quarters of the way at once and no further: the area grows with the window, what is left does not."""
    switch_QT, control_QT = leans(np.full(HALF, 0.75))
    middle = slice(HALF // 2, HALF + HALF // 2)
    whole, narrow = latency(switch_QT, control_QT, 0), latency(switch_QT[:, middle], control_QT[:, middle], 0)
    assert whole.carry_over.mean == pytest.approx(2 * narrow.carry_over.mean, rel=0.05)
    assert [found.left.mean for found in (whole, narrow)] == pytest.approx([0.25, 0.25], abs=0.02)
    assert not whole.over and not narrow.over and whole.half_way == narrow.half_way == 0


def test_the_difference_of_two_runs_is_over_the_same_pairs() -> None:
    rng = np.random.default_rng(2)
    each_Q = rng.integers(0, 10, PAIRS)
    slow, slower = [], []
    for pair in each_Q:
        for late, found in ((pair, slow), (pair + 2, slower)):
            found.append(np.concatenate([np.full(HALF, -1.0), 2 * late_by(late) - 1]))
    control = np.ones((PAIRS, 2 * HALF))
    found = carry_over_difference((np.array(slower), control), (np.array(slow), control), seed=0)
    # Each pair differs by two tokens exactly, however much pairs differ from each other.
    assert found.mean == pytest.approx(2.0) and found.high - found.low < 1e-9


def test_half_way_is_never_where_the_curve_stays_below() -> None:
    assert half_way(np.concatenate([np.full(8, -1.0), np.full(8, -0.5)]), -1.0, 1.0) is None
    assert half_way(np.concatenate([np.full(8, -1.0), np.ones(8)]), -1.0, 1.0) == 0


def test_overlap_and_lean_by_hand() -> None:
    used_TE = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    before_E, after_E = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.25, 0.25, 0.5])
    assert overlap(used_TE, before_E).tolist() == [1.0, 0.0, 0.5, 0.0]
    assert overlap(used_TE, after_E).tolist() == [0.25, 0.75, 0.25, 0.0]
    assert lean_to(used_TE[None], before_E[None], after_E[None])[0].tolist() == [-0.75, 0.75, -0.25, 0.0]


def test_same_experts_by_hand() -> None:
    one = np.array([[[1, 1, 0], [1, 0, 1], [0, 0, 0]]], dtype=bool)
    other = np.array([[[1, 1, 0], [0, 1, 1], [1, 1, 0]]], dtype=bool)
    found = same_experts(one, other)[0]
    assert found[:2].tolist() == [1.0, 0.5] and np.isnan(found[2])


def test_a_profile_leaves_documents_out_and_is_zero_where_none_is_left() -> None:
    counts_GE, domains_G = np.array([[4, 0], [0, 4], [1, 1]]), np.array([0, 0, 1])
    assert profiles(counts_GE, domains_G, 0, [1, 2]).tolist() == [1.0, 0.0]
    assert profiles(counts_GE, domains_G, 0, []).tolist() == [0.5, 0.5]
    assert profiles(counts_GE, domains_G, 1, [2]).tolist() == [0.0, 0.0]


def documents(lengths: list[int]) -> list[TextPiece]:
    """Documents of two domains in turn; token = 1000 * document + place."""
    return [TextPiece(i, i % 2, 1000 * i + np.arange(n)) for i, n in enumerate(lengths)]


def joined(lengths: list[int], longest: int = 128) -> Pairs | None:
    return join_pairs(documents(lengths), longest, 20, seed=0)


def test_pairs_join_ends_to_beginnings_and_controls_share_the_second_half() -> None:
    pairs = joined([30, 40, 25, 33, 50, 28])
    assert pairs.half == 24 and pairs.switch_QT.shape == (20, 48)
    for row in range(20):
        first, control, second = pairs.switch_QT[row, :24], pairs.control_QT[row, :24], pairs.switch_QT[row, 24:]
        lengths = [30, 40, 25, 33, 50, 28]
        for ids, place in ((first, pairs.before_Q[row]), (control, pairs.control_Q[row])):
            assert (ids == 1000 * place + np.arange(lengths[place] - 24, lengths[place])).all()
        assert (second == 1000 * pairs.after_Q[row] + np.arange(24)).all()
        assert (pairs.control_QT[row, 24:] == second).all()
        assert pairs.before_Q[row] % 2 != pairs.after_Q[row] % 2 == pairs.control_Q[row] % 2
        assert pairs.control_Q[row] != pairs.after_Q[row]
        assert pairs.domains_Q2[row].tolist() == [pairs.before_Q[row] % 2, pairs.after_Q[row] % 2]
    assert {tuple(d) for d in pairs.domains_Q2} == {(0, 1), (1, 0)}


def test_short_documents_and_models_give_shorter_halves_or_no_pairs() -> None:
    assert joined([100] * 6).half == HALVES[0]
    assert joined([100] * 6, longest=40).half == 16
    assert joined([9] * 6).half == 8
    assert joined([7] * 6) is None
    assert joined([100] * 4) is None  # two documents of each domain
    assert joined([100] * 6, longest=15) is None


def test_documents_are_cut_where_ids_change_across_blocks_and_unlabelled_ones_are_left_out() -> None:
    text = HeldOut(
        np.arange(8).reshape(2, 4),
        np.array([[5, 5, 6, 6], [6, 7, 7, 7]]),
        np.array([[0, 0, 1, 1], [1, -1, -1, -1]]),
        ["a", "b"],
    )
    found = pieces(text)
    assert [(p.document, p.domain, p.token_ids.tolist()) for p in found] == [(5, 0, [0, 1]), (6, 1, [2, 3, 4])]
