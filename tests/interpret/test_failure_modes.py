"""Ambiguous tokens, unseen domains, oscillation and gradients, on hand-made figures with known answers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hand_routing import VOCABULARY, HandEngine, of_token, request_of, subject_of
from matplotlib.figure import Figure

from spectra_exp.interpret.parts.ambiguity import by_tenths, following_losses
from spectra_exp.interpret.parts.gradients import gradient_rows, summary
from spectra_exp.interpret.parts.oscillation import _draw as draw_oscillation
from spectra_exp.interpret.parts.oscillation import _joined, changes_between, imbalance_swings, returned
from spectra_exp.interpret.parts.oscillation import summary as oscillation_summary
from spectra_exp.interpret.parts.unseen_domain import by_domain, differences_of, load_distance
from spectra_exp.interpret.registry import parts
from spectra_exp.interpret.trace import HeldOut

ROWS, LENGTH = 20, 16


def text(seed: int = 0) -> HeldOut:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (ROWS, LENGTH))
    documents = np.repeat(np.arange(ROWS)[:, None], LENGTH, axis=1)
    return HeldOut(ids, documents, documents % 2, ["even", "odd"])


def hesitant(ids_BS: torch.Tensor) -> torch.Tensor:
    """[B, S, 1, 2]: even at token 0, sure at all others, a little less so the higher the id."""
    first = torch.where(ids_BS == 0, 0.5, 0.999 - 0.001 * ids_BS)
    return torch.stack([first, 1 - first], dim=-1)[:, :, None]


def certain_but_after_0(ids_BS: torch.Tensor) -> torch.Tensor:
    """Logits that predict the next token with probability 1/2, and after token 0 with 1/16."""
    following = torch.cat([ids_BS[:, 1:], ids_BS[:, :1]], dim=1)
    sure = np.log(VOCABULARY - 1.0) * (ids_BS != 0)[..., None]
    return torch.nn.functional.one_hot(following, VOCABULARY) * sure


def test_the_loss_after_ambiguous_tokens_is_set_against_the_rest() -> None:
    engine = HandEngine(1, 2, of_token(1, torch.zeros_like), hesitant, certain_but_after_0)
    request = request_of(engine, text())
    result = parts()["ambiguity"].run(request)
    row = result.tables["ambiguous"].query("layer == 'all' and definition == 'near_even'").iloc[0]
    zeros = int((text().token_ids_MS == 0).sum())
    assert row["tokens"] == zeros and row["share"] == pytest.approx(zeros / (ROWS * LENGTH))
    assert row["loss_ambiguous"] == pytest.approx(np.log(16)) and row["loss_rest"] == pytest.approx(np.log(2))
    assert row["difference"] == row["difference_low"] == row["difference_high"] == pytest.approx(np.log(8))
    domains = result.tables["by_domain"].set_index("domain")
    assert domains.loc["even", "share_near_even"] == pytest.approx((text().token_ids_MS[::2] == 0).mean())


def test_a_loss_belongs_to_the_token_that_predicts_never_to_the_one_predicted() -> None:
    engine = HandEngine(1, 2, of_token(1, torch.zeros_like), hesitant, certain_but_after_0)
    trace = subject_of(engine, text()).trace
    found = following_losses(trace).reshape(ROWS, LENGTH)
    assert np.isnan(found[:, -1]).all() and np.isfinite(found[:, :-1]).all()
    expected = np.where(text().token_ids_MS[:, :-1] == 0, np.log(16), np.log(2))
    np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-5)


def test_tenths_are_by_entropy() -> None:
    entropy = np.linspace(0, 1, 100)[::-1]
    rows = by_tenths(entropy, entropy * 2, np.arange(100) % 7, seed=0)
    assert [row["tokens"] for row in rows] == [10] * 10
    assert rows[0]["entropy"] < 0.1 and rows[0]["loss"] == pytest.approx(2 * rows[0]["entropy"])
    assert len(by_tenths(np.zeros(1), np.zeros(1), np.zeros(1, int), 0)) == 1


def test_a_router_without_choice_or_distribution_has_no_ambiguity() -> None:
    even = HandEngine(1, 2, of_token(1, torch.zeros_like), lambda ids: torch.full((*ids.shape, 1, 2), 0.5))
    assert "the same for every token" in parts()["ambiguity"].run(request_of(even, text())).empty
    none = HandEngine(1, 2, of_token(1, torch.zeros_like))
    assert "no distribution" in parts()["ambiguity"].run(request_of(none, text())).empty


def test_an_unseen_domains_load_and_loss_are_set_against_the_rest() -> None:
    """Odd rows go to expert 1 and are predicted worse."""

    def of_row(ids_BS: torch.Tensor) -> torch.Tensor:
        return (torch.arange(len(ids_BS)) % 2)[:, None].expand_as(ids_BS)

    def logits(ids_BS: torch.Tensor) -> torch.Tensor:
        return certain_but_after_0(torch.where(of_row(ids_BS) == 1, torch.zeros_like(ids_BS), ids_BS.clamp(min=1)))

    subject = subject_of(HandEngine(1, 2, of_token(1, of_row), logits=logits), text())
    found = by_domain(subject, "odd")
    assert found["odd"]["load_distance"] == 1.0 and found["even"]["load_distance"] == 0.0
    assert found["odd"]["load_cv"] == 1.0 and found["odd"]["entropy"] is None
    assert found["odd"]["loss"] == pytest.approx(np.log(16))
    (row,) = differences_of(subject, "odd", seed=0)
    assert row["measure"] == "loss" and row["difference"] == pytest.approx(found["odd"]["loss"] - found["even"]["loss"])
    assert row["difference_low"] > 0


def test_distances_of_loads_by_hand() -> None:
    assert load_distance(np.array([[2, 2], [4, 0]]), np.array([[1, 1], [0, 3]])).tolist() == [0.0, 1.0]
    assert load_distance(np.array([[0, 0]]), np.array([[3, 1]])).tolist() == [0.5]


def snapshot(step: int, ids: list[list[int]]) -> SimpleNamespace:
    return SimpleNamespace(step=step, fraction=step / 100, top_k=len(ids[0]), probe_experts_LPK=np.array([ids]))


def test_changes_and_returns_by_hand() -> None:
    first, second = snapshot(0, [[0, 1], [0, 1]]), snapshot(10, [[0, 2], [2, 3]])
    third = snapshot(20, [[0, 1], [2, 3]])
    (row,) = changes_between(first, second, 4)
    # The tokens keep one and none of two experts; by chance 0.5 (expert 0 alone is in both: 1 * 0.5 of 2) less.
    assert row["change"] == 0.75 and row["per_step"] == 0.075 and row["by_chance"] == pytest.approx(0.75)
    (back,) = returned(first, second, third, 4)
    # Given up: expert 1 twice and expert 0 once; expert 1 comes back to the first token.
    assert back["returned"] == pytest.approx(1 / 3)
    assert back["returned_by_chance"] == pytest.approx((2 * 0.5 + 1 * 0.5) / 3)
    assert returned(first, first, third, 4) == [{"returned": None, "returned_by_chance": None}]


def history(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["step", "fraction", "split", "layer", "metric", "value"])


def test_swings_are_within_a_layer_and_the_summary_parts_at_the_first_tenth() -> None:
    by_layer = {"0": (1, 3, 2), "1": (5, 5, 5)}
    rows = [
        (s, s / 100, "train", layer, "load_cv_batch", value)
        for layer, values in by_layer.items()
        for s, value in zip((5, 10, 15), values, strict=True)
    ]
    rows += [(5, 0.05, "train", "all", "load_cv_batch", 9), (5, 0.05, "validation", "0", "load_cv", 9)]
    swings = imbalance_swings(history(rows))
    assert swings.dropna()["swing"].tolist() == [2, 1, 0, 0] and len(swings) == 6
    changes = pd.DataFrame(
        {
            "step": [0, 10],
            "to_step": [10, 30],
            "fraction": [0.1, 0.3],
            "per_step": [0.2, 0.1],
            "change": [0.5, 0.4],
            "by_chance": 0.6,
            "returned": [None, 0.5],
            "returned_by_chance": [None, 0.1],
        }
    ).assign(run="r")
    early, rest = oscillation_summary(changes, swings.assign(run="r")).to_dict("records")
    assert (early["snapshot_pairs"], early["per_step"], early["swing"]) == (1, 0.2, 1.0)
    assert np.isnan(early["returned"]) and (rest["per_step"], rest["returned"], rest["swing"]) == (0.1, 0.5, 0.5)


def test_a_run_that_kept_no_snapshots_is_drawn_by_its_load() -> None:
    rows = [(step, step / 100, "train", "0", "load_cv_batch", 1.0) for step in (5, 10)]
    swings, figure = imbalance_swings(history(rows)).assign(run="r"), Figure()
    draw_oscillation(figure, _joined([]), swings, {"r": "R"})
    assert [len(axes.lines) for axes in figure.axes] == [0, 1]


def test_gradient_rows_are_the_training_ones_and_their_summary_names_the_largest() -> None:
    by_name = {"grad_norm_router": (1.0, 4.0, 2.0), "experts_without_gradient": (0.5, 0.0, 0.0), "loss": (9, 9, 9)}
    rows = [
        (s, s / 30, "train", "all", name, value)
        for name, values in by_name.items()
        for s, value in zip((10, 20, 30), values, strict=True)
    ]
    found = gradient_rows(history([*rows, (10, 0.3, "train", "0", "grad_norm_router", 7.0)])).assign(run="r")
    assert len(found) == 6 and set(found["metric"]) == {"grad_norm_router", "experts_without_gradient"}
    router = summary(found).set_index("metric").loc["grad_norm_router"]
    assert (router["first"], router["median"], router["largest"], router["largest_at_step"], router["last"]) == (
        1.0,
        2.0,
        4.0,
        20,
        2.0,
    )
