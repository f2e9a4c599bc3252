"""Letters: N tokens, E experts, D router dimension."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from router_cases import normal

from spectra_exp.routing.osr import (
    OsrConfig,
    gram,
    linear_warmup,
    osr_cost,
    representation_orthogonality,
    squared_spectral_norm,
)

SIMILARITY_NE = torch.tensor([[0.9, -0.5, 0.2], [-0.8, 0.1, 0.0]])
GRAM_EE = torch.tensor([[1.0, 0.5, -0.2], [0.5, 1.0, 0.0], [-0.2, 0.0, 1.0]])


def test_cost_by_hand():
    """lambda 0.5, beta 0.5, tau 0.7; squared off-diagonals 0.25, 0.04, 0; written out for each entry."""
    expected = torch.tensor(
        [
            [-0.9 + 0.5 * (0.5 * 0.25 + 0.2 * 0.04) + 0.5 * 0.2**2, 0.5 + 0.5 * 0.9 * 0.25, -0.2 + 0.5 * 0.9 * 0.04],
            [0.8 + 0.5 * 0.1 * 0.25 + 0.5 * 0.1**2, -0.1 + 0.5 * 0.8 * 0.25, 0.5 * 0.8 * 0.04],
        ]
    )
    torch.testing.assert_close(osr_cost(SIMILARITY_NE, GRAM_EE, 0.5, 0.5, 0.7), expected)
    # Planted fault: with the diagonal left in, each expert repels itself.
    wrong = -SIMILARITY_NE + 0.5 * (SIMILARITY_NE.abs() @ GRAM_EE.square())
    assert (wrong - expected).abs().max() > 0.1


def test_terms_can_be_switched_off():
    torch.testing.assert_close(osr_cost(SIMILARITY_NE, GRAM_EE, 0.0, 0.0, 0.7), -SIMILARITY_NE)
    repelled = osr_cost(SIMILARITY_NE, GRAM_EE, 0.5, 0.0, 0.7)
    assert not torch.equal(repelled, -SIMILARITY_NE)
    torch.testing.assert_close(osr_cost(SIMILARITY_NE, torch.eye(3), 0.5, 0.0, 0.7), -SIMILARITY_NE)


def test_blind_to_the_sign_of_a_correlation():
    flipped_EE = GRAM_EE * (2 * torch.eye(3) - 1)
    torch.testing.assert_close(
        osr_cost(SIMILARITY_NE, flipped_EE, 0.5, 0.5, 0.7), osr_cost(SIMILARITY_NE, GRAM_EE, 0.5, 0.5, 0.7)
    )
    # Planted fault: without the square the sign would show.
    off = GRAM_EE - torch.eye(3)
    assert not torch.allclose(SIMILARITY_NE.abs() @ off, SIMILARITY_NE.abs() @ -off)


def test_gram():
    rows_ED = normal(5, 3) * 7
    result = gram(rows_ED)
    expected = [[float(torch.cosine_similarity(a, b, dim=0)) for b in rows_ED] for a in rows_ED]
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert torch.equal(gram(torch.zeros(2, 3)), torch.zeros(2, 2))


@pytest.mark.parametrize("spectral", [False, True])
def test_representation_orthogonality(spectral):
    gram_EE = gram(normal(6, 4))
    difference = gram_EE.numpy() - np.eye(6)
    expected = 0.7 * np.sum(difference**2)
    if spectral:
        expected += 0.3 * np.linalg.svd(difference, compute_uv=False)[0] ** 2
    assert float(representation_orthogonality(gram_EE, spectral)) == pytest.approx(expected, rel=1e-5)
    orthogonal = torch.eye(4, requires_grad=True)
    loss = representation_orthogonality(gram(orthogonal), spectral)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0) and orthogonal.grad.isfinite().all()


@pytest.mark.parametrize("experts", [1, 2, 3, 8, 33, 64])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e3])
def test_the_spectral_norm_is_that_of_a_decomposition(experts, scale):
    vectors_ED = normal(experts, 7, seed=experts)
    matrix_EE = scale * (gram(vectors_ED) - torch.eye(experts))
    expected = torch.linalg.matrix_norm(matrix_EE, ord=2).square()
    torch.testing.assert_close(squared_spectral_norm(matrix_EE), expected, rtol=1e-5, atol=1e-30)


def test_the_spectral_norms_gradient_is_that_of_a_decomposition():
    found, expected = (gram(normal(8, 5)).requires_grad_() for _ in range(2))
    squared_spectral_norm(found).backward()
    torch.linalg.matrix_norm(expected, ord=2).square().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_the_spectral_norm_of_values_that_tie_and_of_nothing():
    # Eigenvalues 1 and -1: a power iteration on the matrix itself would not settle.
    assert float(squared_spectral_norm(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))) == pytest.approx(1.0)
    nothing_EE = torch.zeros(4, 4, requires_grad=True)
    squared_spectral_norm(nothing_EE).backward()
    assert nothing_EE.grad.eq(0).all()


def test_warm_up():
    """Linear over the warm-up, or over a tenth of a run whose tenth is shorter; full from then on."""
    assert [linear_warmup(s, 4, 1000) for s in (0, 1, 2, 3, 4, 999)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert linear_warmup(4, 1000, 100) == 0.5 and linear_warmup(9, 1000, 100) == 1.0
    assert linear_warmup(499, 1000, 100_000) == 0.5
    assert linear_warmup(0, 0, 100) == 1.0
    assert linear_warmup(0, 1000, 3) == 1.0


def test_names_of_rules_survive_being_read_as_booleans():
    assert OsrConfig(sinkhorn_inference=False).sinkhorn_inference == "false"
    assert OsrConfig(sinkhorn_inference=True).sinkhorn_inference == "true"
    assert OsrConfig(sinkhorn_inference="dual").sinkhorn_inference == "dual"
