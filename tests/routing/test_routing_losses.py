"""Letters: N tokens, E experts, K experts per token, D router dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from moe_cases import ids_of, model_of
from router_cases import normal
from torch.nn.functional import normalize
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from spectra_exp.routing.losses import (
    load_balance_by_sequence,
    load_balance_loss,
    projector_orthogonality,
    router_entropy,
    router_z_loss,
    speciality_penalty,
)
from spectra_exp.routing.selection import select_topk


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_uniform_router_scores_one_whatever_k_is(top_k):
    probs_NE = torch.full((12, 6), 1 / 6)
    chosen_NE = torch.zeros(12, 6, dtype=torch.bool)
    for n in range(12):
        chosen_NE[n, [(n + j) % 6 for j in range(top_k)]] = True
    torch.testing.assert_close(load_balance_loss(probs_NE, chosen_NE), torch.tensor(1.0))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_equals_transformers_up_to_k(top_k):
    """Theirs divides the counts by N, so it scores k; ours by N k."""
    for seed in range(3):
        logits_NE = normal(64, 6, seed=seed) * 2
        probs_NE = logits_NE.softmax(-1)
        ours = load_balance_loss(probs_NE, select_topk(probs_NE, top_k))
        theirs = load_balancing_loss_func((logits_NE,), num_experts=6, top_k=top_k)
        torch.testing.assert_close(ours * top_k, theirs)
        assert top_k == 1 or abs(float(ours - theirs)) > 0.5


def test_concatenated_layers_hide_imbalance():
    """Each layer collapses on another expert: per layer the loss is 2, concatenated it claims a perfect 1."""
    layers = [torch.tensor([[1.0, 0.0]]).repeat(8, 1), torch.tensor([[0.0, 1.0]]).repeat(8, 1)]
    per_layer = torch.stack([load_balance_loss(p, select_topk(p, 1)) for p in layers]).mean()
    joined = torch.cat(layers)
    torch.testing.assert_close(per_layer, torch.tensor(2.0))
    torch.testing.assert_close(load_balance_loss(joined, select_topk(joined, 1)), torch.tensor(1.0))


def test_load_balance_gradient_flows_through_the_mean_probability():
    """d/dp of E sum f P is E f / N: the crowded expert's probability is pushed down most."""
    probs_NE = torch.tensor([[0.9, 0.1], [0.8, 0.2]], requires_grad=True)
    load_balance_loss(probs_NE, torch.tensor([[True, False], [True, False]])).backward()
    torch.testing.assert_close(probs_NE.grad, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_entropy():
    probs_NE = (normal(20, 5) * 3).softmax(-1)
    expected = scipy.stats.entropy(probs_NE.double().numpy(), axis=1).mean()
    assert float(router_entropy(probs_NE)) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(router_entropy(torch.full((3, 8), 1 / 8)), torch.tensor(math.log(8)))
    assert router_entropy(torch.eye(4)) == 0


def test_entropy_has_a_finite_gradient_where_a_probability_underflows():
    def gradient(entropy) -> torch.Tensor:
        logits = torch.tensor([[0.0, 300.0, 1.0]], requires_grad=True)
        return torch.autograd.grad(entropy(logits.softmax(-1)), logits)[0]

    assert gradient(router_entropy).isfinite().all()
    # Planted fault: torch's own entr has an infinite slope at 0.
    assert not gradient(lambda p: torch.special.entr(p).sum(-1).mean()).isfinite().all()


def test_z_loss():
    logits_NE = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    torch.testing.assert_close(
        router_z_loss(logits_NE), torch.tensor((math.log(2) ** 2 + math.log(4) ** 2) / 2, dtype=torch.float32)
    )


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7)])
def test_an_orthogonal_projector_costs_nothing(shape):
    weight = torch.nn.init.orthogonal_(torch.empty(*shape), generator=torch.Generator().manual_seed(0))
    assert projector_orthogonality(weight) < 1e-10
    # Planted fault: the larger product of a tall matrix cannot be the identity.
    if shape == (10, 6):
        assert (weight @ weight.T - torch.eye(10)).square().mean() > 0.03


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_projector_orthogonality_takes_the_smaller_product(shape):
    weight = normal(*shape).numpy()
    products = (weight @ weight.T, weight.T @ weight)
    smaller = min(products, key=len)
    expected = ((smaller - np.eye(len(smaller))) ** 2).mean()
    assert float(projector_orthogonality(torch.from_numpy(weight))) == pytest.approx(expected, rel=1e-5)
    doubled = torch.eye(4) * 2  # W W^T = 4 I: squared error 9 on the diagonal, over 16 entries
    assert float(projector_orthogonality(doubled)) == pytest.approx(9 / 4)


@pytest.mark.parametrize(("experts", "dim"), [(3, 8), (8, 3), (4, 4), (1, 4)])
def test_speciality_against_a_plain_loop(experts, dim):
    vectors_NED = normalize(normal(5, experts, dim), dim=-1)
    terms = [
        float(vectors_NED[n, i] @ vectors_NED[n, j]) ** 2
        for n in range(5)
        for i in range(experts)
        for j in range(experts)
        if i != j
    ]
    assert float(speciality_penalty(vectors_NED)) == pytest.approx(np.mean(terms) if terms else 0.0, abs=1e-6)


def test_speciality_at_its_ends():
    assert float(speciality_penalty(torch.eye(4)[None])) == pytest.approx(0, abs=1e-7)
    same = torch.zeros(2, 5, 3)
    same[..., 0] = 1
    assert float(speciality_penalty(same)) == pytest.approx(1)


def test_the_loss_by_sequence_by_hand():
    """Each sequence on two experts of its own: balanced over the batch, not within a sequence."""
    probs_NE = torch.tensor([[0.5, 0.5, 0, 0]] * 3 + [[0, 0, 0.5, 0.5]] * 2)
    sequence_N = torch.tensor([0, 0, 0, 2, 2])
    losses_Q = load_balance_by_sequence(probs_NE, probs_NE > 0, sequence_N, 3)
    torch.testing.assert_close(losses_Q, torch.tensor([2.0, 0.0, 2.0]))
    # Planted fault: f and P of the whole batch.
    assert load_balance_loss(probs_NE, probs_NE > 0) < 1.1
    even_NE = torch.full((6, 4), 0.25)
    torch.testing.assert_close(
        load_balance_by_sequence(even_NE, even_NE > 0, torch.arange(6) // 3, 2), torch.tensor([1.0, 1.0])
    )


def sequence_model(**router):
    from spectra_exp.routing.losses import LossesConfig

    return model_of("loss_free", router={"load_balance_coef": 0.1} | router, losses=LossesConfig("sequence"))


def test_the_scope_reaches_the_models_loss():
    """Wrong versions: a scope that nothing reads, so that the loss is off or another one; f by the biased scores."""
    model, ids = sequence_model(), ids_of(3, 12)
    for layer in model.routed_layers:
        layer.router.linear.weight.data.mul_(20)
        layer.router.bias_E.copy_(torch.tensor([0.5, -0.5, 0.5, -0.5]))
    output = model(input_ids=ids, labels=ids)
    term = output.terms["load_balance"]
    assert output.coefficients["load_balance"] == 0.1
    torch.testing.assert_close(output.loss, output.lm_loss + 0.1 * term)
    sequence_N, expected, biased = torch.arange(36) // 12, [], []
    for layer in model.routed_layers:
        record = output.routing.records[layer.layer]
        chosen_NE = torch.zeros_like(record.chosen_NE).scatter_(1, record.probs_NE.topk(2).indices, True)
        expected.append(load_balance_by_sequence(record.probs_NE, chosen_NE, sequence_N, 3).mean())
        biased.append(load_balance_by_sequence(record.probs_NE, record.chosen_NE, sequence_N, 3).mean())
    torch.testing.assert_close(term.detach(), torch.stack(expected).mean())
    assert abs(float(term.detach() - torch.stack(biased).mean())) > 1e-2
    gradients = torch.autograd.grad(term, [layer.router.linear.weight for layer in model.routed_layers])
    assert all(gradient.any() for gradient in gradients)


def test_padding_and_documents_kept_apart_are_no_part_of_a_sequence():
    model, ids = sequence_model(), ids_of(2, 10)
    plain = model(input_ids=ids, labels=ids).terms["load_balance"]
    padded = torch.cat([ids, torch.zeros(2, 3, dtype=torch.long)], dim=1)
    padded = torch.cat([padded, torch.zeros(1, 13, dtype=torch.long)])
    mask = (padded > 0).long()
    labels = padded.masked_fill(mask == 0, -100)
    found = model(input_ids=padded, labels=labels, attention_mask=mask).terms["load_balance"]
    torch.testing.assert_close(found, plain)
    documents = torch.tensor([[0] * 10, [1] * 4 + [2] * 6])
    apart = model(input_ids=ids, labels=ids, document_ids=documents).terms["load_balance"]
    assert not torch.allclose(apart, plain)
