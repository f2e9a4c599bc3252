"""The similarities by hand, and what each does in the router. Letters: E experts, D router dimension."""

from __future__ import annotations

import pytest
import torch
from router_cases import EXPERTS, inputs_of, normal, router_of, settings_of
from torch.nn.functional import normalize

from spectra_exp.routing.similarity import SIMILARITIES

R, W = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
BY_HAND = {"cosine": 0.8, "dot": 8.0, "l2": -(13**0.5), "bilinear": 0.8}


def test_every_similarity_has_a_figure_by_hand():
    assert set(BY_HAND) == set(SIMILARITIES)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_by_hand(name):
    similarity = SIMILARITIES[name](2)
    if name == "bilinear":
        similarity.reset_parameters()
    pair = (normalize(R, dim=-1), normalize(W, dim=-1)) if similarity.of_unit_vectors else (R, W)
    assert float(similarity(*pair)) == pytest.approx(BY_HAND[name])
    assert similarity.flops_per_token(3) > 0


def test_bilinear_is_a_form_and_learns():
    similarity = SIMILARITIES["bilinear"](2)
    similarity.form.data = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    r, w = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0])
    assert float(similarity(r, w)) == 2 * 7  # r_1 M_12 w_2; the transposed form would give 3 * 5
    similarity(r, w).backward()
    torch.testing.assert_close(similarity.form.grad, torch.outer(r, w))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_in_the_router(name):
    router = router_of(settings_of("spectra", similarity=name))
    inputs = inputs_of()
    found = router(inputs).tensors["similarity"]
    raw, _ = router.sequence(inputs.hidden_BSd, None, None)
    expression = router.expression.linear(inputs.hidden_BSd).unflatten(-1, (EXPERTS, -1))
    unit = (normalize(raw, dim=-1), normalize(expression, dim=-1))
    expected = {
        "cosine": (unit[0] * unit[1]).sum(-1),
        "dot": (raw * expression).sum(-1),
        "l2": -(raw - expression).norm(dim=-1),
        "bilinear": (unit[0] * unit[1]).sum(-1),
    }
    torch.testing.assert_close(found, expected[name].flatten(0, 1))
    for other, value in expected.items():
        if {name, other} != {"cosine", "bilinear"} and name != other:
            assert not torch.allclose(found, value.flatten(0, 1), atol=1e-2)
    # What is handed on and penalised stays of length 1 under every similarity.
    torch.testing.assert_close(router(inputs).carry_BSED.norm(dim=-1), torch.ones(3, 7, EXPERTS))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_lengths_matter_to_some_alone(name):
    """The planted fault is a `dot` that normalises: lengths would then change nothing."""
    router = router_of(settings_of("spectra", similarity=name))
    before = router(inputs_of()).tensors["similarity"]
    with torch.no_grad():
        router.expression.linear.weight *= 3
    after = router(inputs_of()).tensors["similarity"]
    assert torch.allclose(before, after, atol=1e-5) == (name in ("cosine", "bilinear"))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_reach_the_whole_router(name):
    router = router_of(settings_of("spectra", similarity=name))
    (router(inputs_of(training=True)).weights_NE * normal(21, EXPERTS)).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in router.parameters())


def test_l2_at_zero_distance_has_a_gradient():
    vectors = torch.zeros(1, 1, 2, 3, requires_grad=True)
    SIMILARITIES["l2"](3)(vectors, torch.zeros(1, 1, 2, 3)).sum().backward()
    assert vectors.grad.isfinite().all()
