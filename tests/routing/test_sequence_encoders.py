"""Letters: B sequences, S tokens each, d hidden size, E experts, D router dimension."""

from __future__ import annotations

import math

import pytest
import torch
from router_cases import HIDDEN, normal

from spectra_exp.routing.sequence import ENCODERS, GruEncoder, real_tokens_first

EXPERTS, DIM = 3, 2


def _encoder(name: str):
    torch.manual_seed(0)
    encoder = ENCODERS[name](HIDDEN, EXPERTS, DIM)
    encoder.reset_parameters()
    return encoder


MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]],
    "holes": [[1, 0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 1, 1]],
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("kind", MASKS)
def test_padding_changes_no_real_token(name, kind):
    encoder, mask_BS = _encoder(name), torch.tensor(MASKS[kind]).bool()
    hidden_BSd = normal(2, 7, HIDDEN)
    hidden_BSd[~mask_BS] = 1e3
    vectors_BSED, state = encoder(hidden_BSd, mask_BS, None)
    assert vectors_BSED.shape == (2, 7, EXPERTS, DIM)
    for b in range(2):
        alone, alone_state = encoder(hidden_BSd[b][mask_BS[b]][None], None, None)
        torch.testing.assert_close(vectors_BSED[b][mask_BS[b]], alone[0], atol=1e-6, rtol=1e-5)
        if state is not None:
            # The states, whatever they hold, continue alike; their second dimension is the batch's.
            more = normal(1, 3, HIDDEN, seed=b)
            padded_next, alone_next = (encoder(more, None, s)[0] for s in (state[:, b : b + 1], alone_state))
            torch.testing.assert_close(padded_next, alone_next, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["left", "holes"])
def test_ignoring_the_mask_would_change_real_tokens(kind):
    """The wrong version: the recurrence runs over the padding."""
    encoder, mask_BS = _encoder("gru"), torch.tensor(MASKS[kind]).bool()
    hidden_BSd = normal(2, 7, HIDDEN)
    right, wrong = encoder(hidden_BSd, mask_BS, None)[0], encoder(hidden_BSd, None, None)[0]
    assert (right - wrong)[mask_BS].abs().max() > 1e-2


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("cut", [1, 4, 6])
def test_two_chunks_equal_one_pass(name, cut):
    encoder, hidden_BSd = _encoder(name), normal(2, 7, HIDDEN)
    whole, last = encoder(hidden_BSd, None, None)
    first, state = encoder(hidden_BSd[:, :cut], None, None)
    second, state = encoder(hidden_BSd[:, cut:], None, state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-6, rtol=1e-5)
    if encoder.recurrent:
        torch.testing.assert_close(state, last, atol=1e-6, rtol=1e-5)
        forgotten = encoder(hidden_BSd[:, cut:], None, None)[0]
        assert (forgotten - whole[:, cut:]).abs().max() > 1e-3


def test_a_chunk_of_padding_keeps_the_state():
    encoder, hidden_BSd = _encoder("gru"), normal(2, 5, HIDDEN)
    _, state = encoder(hidden_BSd, None, None)
    mask_BS = torch.tensor([[False] * 3, [True] * 3])
    _, after = encoder(normal(2, 3, HIDDEN, seed=1), mask_BS, state)
    assert torch.equal(after[:, 0], state[:, 0]) and not torch.equal(after[:, 1], state[:, 1])
    _, fresh = encoder(normal(2, 3, HIDDEN, seed=1), mask_BS, None)
    assert torch.equal(fresh[:, 0], torch.zeros_like(fresh[:, 0]))


@pytest.mark.parametrize("name", ENCODERS)
def test_never_looks_ahead(name):
    encoder, hidden_BSd = _encoder(name), normal(2, 7, HIDDEN)
    before = encoder(hidden_BSd, None, None)[0]
    for t in range(6):
        changed = hidden_BSd.clone()
        changed[:, t + 1 :] = normal(2, 6 - t, HIDDEN, seed=9)
        after = encoder(changed, None, None)[0]
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1], atol=1e-6, rtol=0)
        assert (after[:, t + 1 :] - before[:, t + 1 :]).abs().max() > 1e-2
    # `recurrent` as declared: whether a token's vectors depend on earlier ones.
    changed = hidden_BSd.clone()
    changed[:, 0] += 1
    assert torch.allclose(encoder(changed, None, None)[0][:, 1:], before[:, 1:], atol=1e-6) != encoder.recurrent


def test_gru_starts_orthogonal_and_xavier():
    encoder, width = _encoder("gru"), EXPERTS * DIM
    for gate in encoder.gru.weight_hh_l0.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(width), atol=1e-5, rtol=0)
    bound = math.sqrt(6 / (HIDDEN + width))
    for gate in encoder.gru.weight_ih_l0.chunk(3):
        assert gate.abs().max() <= bound and float(gate.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.2)
    assert not encoder.gru.bias_ih_l0.any() and not encoder.gru.bias_hh_l0.any()
    # Planted fault: one orthogonal draw for all three gates, stacked, leaves each gate's rows non-orthogonal.
    stacked = torch.nn.init.orthogonal_(torch.empty(3 * width, width))[:width]
    assert (stacked @ stacked.T - torch.eye(width)).abs().max() > 0.1


def test_one_vector_for_all_experts():
    vectors_BSED, _ = _encoder("shared_linear")(normal(2, 3, HIDDEN), None, None)
    assert torch.equal(vectors_BSED[:, :, 0], vectors_BSED[:, :, 2])
    own, _ = _encoder("linear")(normal(2, 3, HIDDEN), None, None)
    assert not torch.allclose(own[:, :, 0], own[:, :, 2])


def test_flops_count_every_matrix():
    width = EXPERTS * DIM
    assert _encoder("gru").flops_per_token() == 2 * 3 * (HIDDEN * width + width * width)
    assert _encoder("linear").flops_per_token() == 2 * HIDDEN * width
    assert _encoder("shared_linear").flops_per_token() == 2 * HIDDEN * DIM


def test_real_tokens_first():
    order_BS, length_B = real_tokens_first(torch.tensor([[False, True, False, True]]))
    assert order_BS.tolist() == [[1, 3, 0, 2]] and length_B.tolist() == [2]


def test_gradient_through_padding():
    encoder, mask_BS = _encoder("gru"), torch.tensor(MASKS["holes"]).bool()
    assert isinstance(encoder, GruEncoder)
    hidden_BSd = normal(2, 7, HIDDEN).requires_grad_()
    encoder(hidden_BSd, mask_BS, None)[0][mask_BS].sum().backward()
    assert not hidden_BSd.grad[~mask_BS].any() and hidden_BSd.grad[mask_BS].abs().min() > 0
