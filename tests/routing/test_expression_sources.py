"""Letters: B sequences, S tokens each, d hidden size, E experts, D router dimension."""

from __future__ import annotations

import pytest
import torch
from router_cases import EXPERTS, HIDDEN, normal
from torch.nn.functional import normalize

from spectra_exp.routing.expression import EXPRESSIONS, RunningAverage, real_mean

DIM = 3


def _source(name: str):
    torch.manual_seed(0)
    source = EXPRESSIONS[name](HIDDEN, EXPERTS, DIM)
    source.reset_parameters()
    return source


def test_running_average_starts_from_the_first_value():
    average = RunningAverage((2,))
    first, second = torch.tensor([4.0, -2.0]), torch.tensor([0.0, 8.0])
    assert torch.equal(average.value_or(first), first)
    average.move(first)
    assert torch.equal(average.value, first)
    # Planted fault: an average started from zero would stand at 1 % of it.
    assert not torch.allclose(average.value, 0.01 * first)
    average.move(second)
    torch.testing.assert_close(average.value, 0.99 * first + 0.01 * second)
    assert torch.equal(average.value_or(second * 100), average.value)
    assert average.updates == 2


def test_running_average_is_saved():
    average, other = RunningAverage((2,)), RunningAverage((2,))
    average.move(torch.ones(2))
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.value, torch.ones(2)) and other.updates == 1


def test_real_mean_ignores_padding_even_nan():
    values_BSED = normal(2, 3, EXPERTS, DIM)
    mask_BS = torch.tensor([[True, True, False], [False, True, False]])
    values_BSED[~mask_BS] = torch.nan
    expected = (values_BSED[0, 0] + values_BSED[0, 1] + values_BSED[1, 1]) / 3
    torch.testing.assert_close(real_mean(values_BSED, mask_BS), expected)
    assert torch.equal(real_mean(values_BSED, torch.zeros_like(mask_BS)), torch.zeros(EXPERTS, DIM))
    torch.testing.assert_close(real_mean(values_BSED[:1, :2], None), (values_BSED[0, 0] + values_BSED[0, 1]) / 2)


def test_projector_starts_orthogonal_at_a_tenth_and_gives_unit_vectors():
    source = _source("projector")
    weight = source.linear.weight  # 12 x 12: square
    torch.testing.assert_close(weight @ weight.T, 0.01 * torch.eye(EXPERTS * DIM), atol=1e-6, rtol=0)
    vectors = source(normal(2, 5, HIDDEN), normal(2, 5, EXPERTS, DIM), None)
    assert vectors.shape == (2, 5, EXPERTS, DIM)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2, 5, EXPERTS))
    assert source.flops_per_token() == 2 * HIDDEN * EXPERTS * DIM


def test_running_mean_of_routing_vectors():
    source, vectors_BSED = _source("running_mean"), normalize(normal(2, 5, EXPERTS, DIM), dim=-1)
    mask_BS = torch.tensor([[True] * 5, [True, False, False, False, False]])
    first = source(normal(2, 5, HIDDEN), vectors_BSED, mask_BS)
    torch.testing.assert_close(first[0, 0], normalize(vectors_BSED[mask_BS].mean(0), dim=-1))
    source.mean.move(torch.full((EXPERTS, DIM), 2.0))
    later = source(normal(2, 5, HIDDEN), vectors_BSED, mask_BS)
    torch.testing.assert_close(later[0, 0], torch.full((EXPERTS, DIM), DIM**-0.5))
    assert source.projector_weight is None and not list(source.parameters())
    # The draft's wording, e = r, is the fault: every cosine would be 1.
    cosines = (vectors_BSED * first).sum(-1)
    assert cosines.min() < 0.5 and torch.allclose((vectors_BSED * vectors_BSED).sum(-1), torch.ones(2, 5, EXPERTS))


def test_embedding_has_unit_length_times_its_scale():
    source = _source("embedding")
    vectors = source(normal(2, 5, HIDDEN), normal(2, 5, EXPERTS, DIM), None)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.full((1, 1, EXPERTS), 10.0))
    vectors.sum().backward()
    assert source.scale.grad != 0 and source.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_source_broadcasts(name):
    vectors_BSED = normalize(normal(2, 5, EXPERTS, DIM), dim=-1)
    found = _source(name)(normal(2, 5, HIDDEN), vectors_BSED, None)
    assert (vectors_BSED * found).shape == (2, 5, EXPERTS, DIM)
