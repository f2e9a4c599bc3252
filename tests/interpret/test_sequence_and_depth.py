"""Routing along the sequence, the depth and domain boundaries, on hand-made routings with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hand_routing import VOCABULARY, HandEngine, of_token, request_of, subject_of, text_of
from sklearn.metrics import normalized_mutual_info_score

from spectra_exp.interpret.parts.boundaries import used_experts
from spectra_exp.interpret.parts.depth import matched_share
from spectra_exp.interpret.parts.positions import document_bins, log_ratio
from spectra_exp.interpret.registry import Request, parts
from spectra_exp.interpret.results import picture_bytes
from spectra_exp.interpret.trace import HeldOut, group_counts, sequence_bins

ROWS, LENGTH = 24, 32


def long_text(seed: int = 0) -> HeldOut:
    """Documents of 48 tokens of two domains in turn; ids of a domain are even or odd."""
    rng = np.random.default_rng(seed)
    documents = np.arange(ROWS * LENGTH) // 48
    ids = 2 * rng.integers(0, VOCABULARY // 2, ROWS * LENGTH) + documents % 2
    return HeldOut(*(a.reshape(ROWS, LENGTH) for a in (ids, documents, documents % 2)), ["even", "odd"])


def run_part(name: str, request: Request):
    return parts()[name].run(request)


def test_an_expert_of_the_second_half_of_the_block_shows_as_one() -> None:
    def by_half(ids_BS: torch.Tensor) -> torch.Tensor:
        return (torch.arange(ids_BS.shape[1]) >= ids_BS.shape[1] // 2).long().expand_as(ids_BS)

    result = run_part("positions", request_of(HandEngine(1, 2, of_token(1, by_half)), long_text()))
    table = result.tables["block"]
    block = table[table["expert"] == 1]
    assert block["share"].tolist() == [0.0] * 16 + [1.0] * 16
    assert block["log2_ratio"].iloc[-1] == pytest.approx(1.0) and block["log2_ratio"].iloc[:16].isna().all()
    information = result.tables["information"].set_index("within")
    assert information.loc["block", "information"] == pytest.approx(np.log(2))
    assert information.loc["block", "shuffled"] < 0.05
    # Documents of 48 tokens begin at other places of the block each time.
    assert information.loc["document", "information"] < 0.1


def test_routing_by_token_knows_no_position() -> None:
    engine = HandEngine(1, 4, of_token(1, lambda ids: ids // 4))
    information = run_part("positions", request_of(engine, long_text())).tables["information"].set_index("within")
    for kind in ("block", "document"):
        assert information.loc[kind, "information"] == pytest.approx(information.loc[kind, "shuffled"], abs=0.02)


def test_a_layer_without_a_token_has_no_information() -> None:
    def second_idle(ids_BS: torch.Tensor) -> torch.Tensor:
        return torch.stack([ids_BS % 4, torch.full_like(ids_BS, -1)], dim=-1)

    result = run_part("positions", request_of(HandEngine(2, 4, second_idle), long_text()))
    idle = result.tables["information"].set_index("layer").loc[1]
    assert idle[["information", "shuffled"]].isna().all(axis=None)
    assert picture_bytes(result.pictures["block"])


def test_bins_of_positions_by_hand() -> None:
    bins, starts = document_bins(np.array([7] * 9 + [8] * 3))
    assert bins.tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4, 0, 1, 2] and starts.tolist() == [0, 1, 2, 4, 8]
    bins, starts = document_bins(np.array([1, 2]))
    assert bins.tolist() == [0, 0] and starts.tolist() == [0]
    bins, starts = sequence_bins(np.arange(70), 32)
    assert starts.tolist() == list(range(0, 70, 3)) and bins[-1] == len(starts) - 1


def test_counts_leave_out_tokens_without_an_expert_and_empty_ones_stay_empty() -> None:
    experts_NK = np.array([[0, 1], [1, -1], [-1, -1]])
    counts_PE = group_counts(np.array([0, 0, 1]), experts_NK, 2, 3)
    assert counts_PE.tolist() == [[1, 2, 0], [0, 0, 0]]
    assert np.isnan(log_ratio(counts_PE)[1]).all() and np.isnan(log_ratio(counts_PE)[:, 2]).all()


def test_layers_that_name_the_same_groups_differently_agree_wholly() -> None:
    def renamed(ids_BS: torch.Tensor) -> torch.Tensor:
        group = ids_BS % 4
        return torch.stack([group, (group + 1) % 4, ids_BS // 4], dim=-1)

    result = run_part("depth", request_of(HandEngine(3, 4, renamed), long_text()))
    table = result.tables["agreement"].set_index(["layer", "other_layer"])
    assert table.loc[(0, 1), ["nmi", "matched"]].tolist() == pytest.approx([1.0, 1.0])
    assert table.loc[(0, 1), "nmi_shuffled"] < 0.02 and table.loc[(0, 1), "matched_shuffled"] < 0.4
    trace = subject_of(HandEngine(3, 4, renamed), long_text()).trace
    expected = normalized_mutual_info_score(trace.first_NL[:, 0], trace.first_NL[:, 2])
    assert table.loc[(0, 2), "nmi"] == pytest.approx(expected)
    flow = result.tables["flow"]
    first = flow[(flow["layer"] == 0) & (flow["tokens"] > 0)]
    assert (first["next_expert"] == (first["expert"] + 1) % 4).all() and (first["share_of_expert"] == 1).all()
    assert flow[flow["layer"] == 1]["tokens"].sum() == ROWS * LENGTH


def test_matching_and_joint_counts_by_hand() -> None:
    joint = group_counts(np.array([0, 0, 1, 1, -1]), np.array([1, 1, 0, 1, 0])[:, None], 2, 2)
    assert joint.tolist() == [[0, 2], [1, 1]]
    assert matched_share(joint) == 3 / 4 and matched_share(np.zeros((2, 2), int)) is None


def test_one_layer_and_one_expert_say_why_there_is_nothing() -> None:
    assert (
        "one routed layer"
        in run_part("depth", request_of(HandEngine(1, 2, of_token(1, lambda i: i % 2)), long_text())).empty
    )
    single = request_of(HandEngine(2, 1, of_token(2, torch.zeros_like)), long_text())
    for name in ("positions", "depth", "boundaries", "ambiguity"):
        assert "one expert each" in run_part(name, single).empty


def lagging(lag: int):
    """The expert is the domain (parity) of the token `lag` places back."""

    def rule(ids_BS: torch.Tensor) -> torch.Tensor:
        return torch.cat([ids_BS[:, :1].expand(-1, lag), ids_BS], dim=1)[:, : ids_BS.shape[1]] % 2

    return rule


@pytest.mark.parametrize("lag", [0, 3])
def test_a_router_that_looks_back_three_tokens_carries_over_for_three(lag: int) -> None:
    result = run_part("boundaries", request_of(HandEngine(2, 2, of_token(2, lagging(lag))), long_text()))
    row = result.tables["latency"].set_index("layer").loc["all"]
    # Profiles are of packed text, in which each document's first tokens lag too: they are not quite pure.
    assert row["carry_over"] == pytest.approx(lag, abs=0.05) and row["half_way"] == lag
    assert row["carry_over_low"] <= row["carry_over"] <= row["carry_over_high"]
    curve = result.tables["curves"].query("curve == 'same_experts' and layer == 'all'")
    assert curve.query("distance < 0")["mean"].isna().all()
    same = curve.query("distance >= 0")["mean"]
    assert same.tolist() == [0.0] * lag + [1.0] * (len(same) - lag)


def test_two_runs_are_compared_over_the_same_pairs() -> None:
    text = long_text()
    slow, fast = (subject_of(HandEngine(2, 2, of_token(2, lagging(lag))), text, f"lag {lag}") for lag in (3, 0))
    result = run_part("boundaries", Request(slow, fast))
    assert result.tables["latency"].query("layer == 'all'")["run"].tolist() == ["lag 3", "lag 0"]
    assert any("carry-over over the same pairs: 3.0" in note for note in result.notes)
    dense = HandEngine(0, 0, of_token(0, torch.zeros_like))
    alone = run_part("boundaries", Request(slow, subject_of(dense, text, "dense")))
    assert "dense: it has no choice of experts." in alone.notes and set(alone.tables["latency"]["run"]) == {"lag 3"}


def test_routing_blind_to_domains_has_no_latency_and_says_so() -> None:
    result = run_part("boundaries", request_of(HandEngine(1, 4, of_token(1, lambda ids: ids // 4)), long_text()))
    assert result.tables["latency"]["carry_over"].isna().all()
    assert any("does not tell the two domains apart" in note for note in result.notes)


def test_without_labels_or_with_short_documents_there_are_no_boundaries() -> None:
    engine = HandEngine(1, 2, of_token(1, lambda ids: ids % 2))
    text = long_text()
    unlabelled = HeldOut(text.token_ids_MS, text.document_ids_MS, np.full_like(text.domain_ids_MS, -1), [])
    assert "no domain labels" in run_part("boundaries", request_of(engine, unlabelled)).empty
    short = text_of([[0, 1, 2, 3]] * 6, [[n, n, 10 + n, 10 + n] for n in range(6)], [[0, 0, 1, 1]] * 6, ["a", "b"])
    assert "too short or too few to join" in run_part("boundaries", request_of(engine, short)).empty


def test_experts_of_joined_texts_do_not_depend_on_how_many_are_read_at_once() -> None:
    subject = subject_of(HandEngine(2, 4, of_token(2, lambda ids: ids // 4)), long_text())
    used = used_experts(subject, long_text().token_ids_MS)
    assert used.shape == (2, ROWS, LENGTH, 4)
    assert (used[0].argmax(-1) == long_text().token_ids_MS // 4).all()


def test_joined_texts_are_no_longer_than_the_blocks_that_are_looked_at() -> None:
    text = long_text()
    narrow = HeldOut(
        *(array.reshape(-1, 16) for array in (text.token_ids_MS, text.document_ids_MS, text.domain_ids_MS)),
        text.domains,
    )
    engine = HandEngine(1, 2, of_token(1, lambda ids: ids % 2))
    assert engine.longest > 16
    table = run_part("boundaries", request_of(engine, narrow)).tables["latency"]
    assert set(table["tokens_each"]) == {8}


def test_a_switch_that_comes_after_the_window_is_said_to_be_unfinished() -> None:
    slow = run_part("boundaries", request_of(HandEngine(1, 2, of_token(1, lagging(60))), long_text()))
    half = slow.tables["latency"]["tokens_each"].iloc[0]
    assert half < 60 and not slow.tables["latency"]["over"].any()
    note = next(note for note in slow.notes if "pairs of" in note)
    assert f"not gone within {half} tokens" in note and "not over within the window" in note and "lower bound" in note
