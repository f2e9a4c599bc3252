"""Losses that hold router rows or experts' outputs apart, by hand and each with its wrong version.

Letters: N tokens, E experts, K experts per token, d hidden size.
"""

from __future__ import annotations

import pytest
import torch
from moe_cases import ids_of, model_of, train_pass
from router_cases import EXPERTS, HIDDEN, inputs_of, layer_of, normal, router_of, run_layer, settings_of
from torch.nn.functional import normalize

from spectra_exp.moe.layer import MoeLayer
from spectra_exp.routing.losses import distance_from_orthonormal, mean_squared_cosine, score_variance_loss


def test_distance_from_orthonormal_by_hand():
    weight = torch.tensor([[1.0, 0, 0], [0.5, 2.0, 0]])
    # W W^T - I = [[0, 0.5], [0.5, 3.25]].
    assert distance_from_orthonormal(weight).item() == pytest.approx(4.25)
    # Planted fault: W^T W of more columns than rows can never be I.
    rows = torch.eye(3)[:2]
    assert distance_from_orthonormal(rows) == 0 and distance_from_orthonormal(rows.T) == 1


def test_mean_squared_cosine_by_hand():
    """cos 0, 1/sqrt 2 twice; lengths play no part; one vector, or zeros, have none."""
    vectors = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert mean_squared_cosine(vectors[None]).item() == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert mean_squared_cosine(-7 * vectors[None]).item() == pytest.approx(1 / 3)
    assert mean_squared_cosine(vectors[None, :1]) == 0 and mean_squared_cosine(torch.zeros(2, 3, 4)) == 0
    # Planted fault: signed cosines cancel.
    opposite = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    assert mean_squared_cosine(opposite).item() == pytest.approx(1.0)
    cosines = opposite[0] @ opposite[0].T
    assert (cosines.sum() - 3) / 6 < 0


def test_score_variance_by_hand():
    """Two tokens that differ by 0.6 at two experts: 0.09 each; alike tokens have none."""
    probs_NE = torch.tensor([[0.8, 0.2], [0.2, 0.8]], requires_grad=True)
    assert score_variance_loss(probs_NE).item() == pytest.approx(-0.18)
    assert score_variance_loss(probs_NE[:1].expand(5, 2)) == 0
    whole = -(probs_NE - probs_NE.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(
        torch.autograd.grad(score_variance_loss(probs_NE), probs_NE), torch.autograd.grad(whole, probs_NE)
    )


@pytest.mark.parametrize(
    ("name", "term", "rate"), [("simbal", "similarity", 0.02), ("router_orthogonality", "row_ortho", 3.0)]
)
def test_the_loss_moves_the_rows_apart(name, term, rate):
    """By gradient steps on the term alone; only one of them holds the rows' lengths too."""
    router = router_of(settings_of(name))
    router.linear.weight.data = normal(1, HIDDEN, seed=4) + 0.3 * normal(EXPERTS, HIDDEN, seed=5)
    before = mean_squared_cosine(router.linear.weight[None]).item()
    assert before > 0.5
    for _ in range(200):
        router.zero_grad()
        router(inputs_of(training=True)).losses[term].backward()
        router.linear.weight.data.sub_(rate * router.linear.weight.grad)
    after = mean_squared_cosine(router.linear.weight[None]).item()
    assert after < 0.2 * before
    lengths = router.linear.weight.norm(dim=1)
    assert ((lengths - 1).abs() < 0.1).all() == (name == "simbal")


def test_simbal_has_no_balance_loss_and_the_others_the_usual_one():
    weights = {
        n: router_of(settings_of(n)).loss_coefficients(0, 9) for n in ("simbal", "router_orthogonality", "switch")
    }
    assert set(weights["simbal"]) == {"similarity"}
    assert weights["router_orthogonality"].items() > weights["switch"].items()


def pairs_of(layer: MoeLayer, hidden_BSd, chosen_NE) -> torch.Tensor:
    """Squared cosine of each token's two outputs, one token and one expert at a time."""
    values = []
    for token, experts in zip(hidden_BSd.flatten(0, 1), chosen_NE, strict=True):
        outputs = []
        for expert in experts.nonzero()[:, 0].tolist():
            one = torch.zeros(1, EXPERTS, dtype=torch.bool)
            one[0, expert] = True
            outputs.append(layer.experts(token[None], one, one.float())[0][0])
        first, second = normalize(torch.stack(outputs), dim=1)
        values.append((first @ second) ** 2)
    return torch.stack(values)


def test_the_outputs_compared_are_those_of_one_token():
    """Wrong version: rows of the list of assignments one after the other, which are different tokens'."""
    layer, hidden_BSd = layer_of(settings_of("output_orthogonality")), normal(3, 7, HIDDEN)
    _, record = run_layer(layer, hidden_BSd, True)
    expected = pairs_of(layer, hidden_BSd, record.chosen_NE).mean()
    torch.testing.assert_close(record.losses["output_ortho"], expected)
    at = layer.experts(hidden_BSd.flatten(0, 1), record.chosen_NE, record.weights_NE)[1]
    wrong = mean_squared_cosine(at.outputs_Ad.view(21, 2, HIDDEN))
    assert (wrong - expected).abs() > 1e-2
    assert not run_layer(layer, hidden_BSd, False)[1].losses


def test_tokens_short_of_experts_count_with_what_they_have():
    layer = layer_of(settings_of("output_orthogonality"))
    chosen_NE = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    outputs_Ad, token_A, expert_A = torch.eye(3), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    outputs_Ad[1] = torch.tensor([1.0, 0, 0])
    # Entries that fill the list up on a GPU are zero.
    filled = torch.cat([outputs_Ad, torch.zeros(2, 3)]), torch.tensor([0, 0, 1, 2, 0]), torch.tensor([0, 1, 2, 0, 3])
    for case in ((outputs_Ad, token_A, expert_A), filled):
        term = layer.router.losses_of_outputs(*case, chosen_NE)["output_ortho"]
        assert term.item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("term", ["output_ortho", "score_variance"])
def test_the_terms_reach_the_model_and_what_they_are_about(term):
    coefficient = {"output_ortho": "output_ortho_coef", "score_variance": "variance_coef"}[term]
    model = model_of("output_orthogonality", router={"jitter": 0.0})
    output = model(input_ids=ids_of(), labels=ids_of())
    assert output.coefficients[term] == 0.01 and output.terms[term].isfinite()
    layer = model.routed_layers[1]
    about = layer.experts.down if term == "output_ortho" else layer.router.linear.weight
    assert torch.autograd.grad(output.terms[term], about)[0].any()
    off = model_of("output_orthogonality", router={"jitter": 0.0, coefficient: 0.0})
    assert term not in off(input_ids=ids_of(), labels=ids_of()).terms


def test_checkpointing_recomputes_the_same_outputs_loss():
    losses, gradients = [], []
    for checkpointing in (False, True):
        model = model_of("output_orthogonality", router={"output_ortho_coef": 1.0, "variance_coef": 1.0})
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        losses.append(train_pass(model, ids_of()))
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert torch.equal(*losses)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
