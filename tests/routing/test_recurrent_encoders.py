"""Every sequence encoder's contract, and each recurrence against PyTorch's own or its plain loop.

Letters: B sequences, S tokens each, d hidden size, E experts, D router dimension, T tokens with a state's.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from router_cases import normal

from spectra_exp.routing.sequence import ENCODERS
from spectra_exp.routing.sequence.recurrence import LinearRecurrence, scan

B, S, HIDDEN, E, D = 3, 9, 6, 4, 5
STATEFUL = [name for name, cls in ENCODERS.items() if cls.recurrent]


def encoder_of(name: str, seed: int = 0, experts: int = E, dim: int = D):
    torch.manual_seed(seed)
    encoder = ENCODERS[name](HIDDEN, experts, dim)
    encoder.reset_parameters()
    return encoder


def in_chunks(encoder, hidden, mask, cuts):
    """Vectors and state of several calls that hand the state on."""
    state, parts = None, []
    for begin, end in zip([0, *cuts], [*cuts, hidden.shape[1]], strict=True):
        vectors, state = encoder(hidden[:, begin:end], None if mask is None else mask[:, begin:end], state)
        parts.append(vectors)
    return torch.cat(parts, dim=1), state


def random_mask(seed: int, b: int = B, s: int = S):
    return torch.rand(b, s, generator=torch.Generator().manual_seed(seed)) < 0.6


@pytest.mark.parametrize("name", ENCODERS)
def test_shape_and_initial_weights(name):
    encoder = encoder_of(name)
    vectors, state = encoder(normal(B, S, HIDDEN), None, None)
    assert vectors.shape == (B, S, E, D) and torch.isfinite(vectors).all()
    assert (state is not None) == encoder.recurrent
    if state is not None:
        assert state.shape[1] == B
    again = encoder_of(name)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), again.parameters(), strict=True))
    other = encoder_of(name, seed=1)
    assert any(not torch.equal(a, b) for a, b in zip(encoder.parameters(), other.parameters(), strict=True))
    assert encoder.flops_per_token() > 0


@pytest.mark.parametrize("name", ENCODERS)
def test_no_token_sees_a_later_one(name):
    encoder, hidden = encoder_of(name), normal(B, S, HIDDEN)
    changed = hidden.clone()
    changed[:, 5:] = normal(B, S - 5, HIDDEN, seed=1)
    before, after = encoder(hidden, None, None)[0], encoder(changed, None, None)[0]
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


@pytest.mark.parametrize("name", STATEFUL)
def test_an_earlier_token_is_remembered(name):
    encoder, hidden = encoder_of(name), normal(B, S, HIDDEN)
    changed = hidden.clone()
    changed[:, 0] += 3
    difference = (encoder(hidden, None, None)[0] - encoder(changed, None, None)[0]).abs()
    assert difference[:, 1].max() > 1e-3


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, S - 1), max_size=S - 1), seed=st.integers(0, 50), padded=st.booleans())
def test_one_pass_equals_chunks(name, cuts, seed, padded):
    encoder, hidden = encoder_of(name), normal(B, S, HIDDEN, seed=seed)
    mask = random_mask(seed) if padded else None
    whole, state = encoder(hidden, mask, None)
    parts, part_state = in_chunks(encoder, hidden, mask, sorted(cuts))
    real = torch.ones(B, S, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(whole[real], parts[real], atol=2e-6, rtol=1e-4)
    if encoder.fixed_state:
        torch.testing.assert_close(state, part_state, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", STATEFUL)
def test_planted_fault_a_forgotten_state_is_seen(name):
    encoder, hidden = encoder_of(name), normal(B, S, HIDDEN)
    whole, _ = encoder(hidden, None, None)
    forgot = torch.cat([encoder(hidden[:, :4], None, None)[0], encoder(hidden[:, 4:], None, None)[0]], dim=1)
    assert not torch.allclose(whole, forgot, atol=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 200))
def test_padding_anywhere_changes_nothing(name, seed):
    """Each sequence alone and unpadded gives the same vectors and state; padding holds large numbers."""
    encoder, hidden, mask = encoder_of(name), normal(B, S, HIDDEN, seed=seed), random_mask(seed)
    mask[1] = False  # a sequence without a real token
    start = encoder(normal(B, 2, HIDDEN, seed=seed + 1), None, None)[1]
    filled = torch.where(mask[..., None], hidden, 1e4)
    vectors, state = encoder(filled, mask, start)
    for row in range(B):
        own_start = None if start is None else start[:, row : row + 1]
        if not mask[row].any():
            if encoder.fixed_state:
                torch.testing.assert_close(state[:, row : row + 1], own_start)
            continue
        alone, alone_state = encoder(hidden[row : row + 1, mask[row]], None, own_start)
        torch.testing.assert_close(vectors[row, mask[row]], alone[0], atol=2e-6, rtol=1e-4)
        if encoder.fixed_state:
            torch.testing.assert_close(state[:, row], alone_state[:, 0], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", STATEFUL)
def test_planted_fault_padding_that_enters_is_seen(name):
    encoder, hidden = encoder_of(name), normal(B, S, HIDDEN)
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[:, 2:4] = False
    right, wrong = encoder(hidden, mask, None)[0], encoder(hidden, None, None)[0]
    torch.testing.assert_close(right[:, :2], wrong[:, :2])
    assert not torch.allclose(right[:, 4:], wrong[:, 4:], atol=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("length", [1, S])
def test_gradients_are_finite_under_padding_and_reach_all_weights(name, length):
    encoder = encoder_of(name)
    hidden = normal(B, length, HIDDEN).requires_grad_()
    mask = torch.ones(B, length, dtype=torch.bool)
    mask[0], mask[1, 2:5] = False, False
    start = encoder(normal(B, 3, HIDDEN, seed=1), None, None)[1]
    vectors, _ = encoder(hidden, mask, start)
    vectors[mask].square().sum().backward()
    assert torch.isfinite(hidden.grad).all() and (hidden.grad[~mask] == 0).all()
    for parameter in encoder.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0


def test_gru_block_is_a_gru_per_block():
    encoder, hidden = encoder_of("gru_block"), normal(B, S, HIDDEN).requires_grad_()
    torch.nn.init.normal_(encoder.recurrent_bias)
    torch.nn.init.normal_(encoder.input.bias)
    start = normal(E, B, D, seed=2)
    vectors, state = encoder(hidden, None, start)
    (gradient,) = torch.autograd.grad(vectors.square().sum(), hidden)
    blocks = []
    for i in range(E):
        gru = torch.nn.GRU(HIDDEN, D, batch_first=True)
        rows = slice(i * 3 * D, (i + 1) * 3 * D)
        gru.weight_ih_l0.data, gru.bias_ih_l0.data = encoder.input.weight.data[rows], encoder.input.bias.data[rows]
        gru.weight_hh_l0.data = encoder.recurrent_weight.data[i]
        gru.bias_hh_l0.data = encoder.recurrent_bias.data[rows]
        block, last = gru(hidden, start[i][None])
        torch.testing.assert_close(state[i], last[0])
        blocks.append(block)
    expected = torch.stack(blocks, dim=2)
    torch.testing.assert_close(vectors, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), hidden)[0])
    # Planted fault: another expert's recurrent matrix.
    encoder.recurrent_weight.data = encoder.recurrent_weight.data.roll(1, 0)
    assert not torch.allclose(encoder(hidden, None, start)[0], expected, atol=1e-3)


def test_gru_block_experts_are_independent_and_cheaper():
    encoder, hidden = encoder_of("gru_block"), normal(B, S, HIDDEN)
    before = encoder(hidden, None, None)[0]
    encoder.recurrent_weight.data[1] += 1
    after = encoder(hidden, None, None)[0]
    assert torch.equal(before[:, :, [0, 2, 3]], after[:, :, [0, 2, 3]])
    assert not torch.allclose(before[:, :, 1], after[:, :, 1], atol=1e-3)
    dense = encoder_of("gru")
    saved = dense.flops_per_token() - encoder.flops_per_token()
    assert saved == 2 * 3 * ((E * D) ** 2 - E * D * D)


def plain_recurrence(keep, add):
    """h_t = keep_t h_{t-1} + add_t, one token after another."""
    now, steps = torch.zeros_like(add[:, 0]), []
    for t in range(add.shape[1]):
        now = keep[:, t] * now + add[:, t]
        steps.append(now)
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 31, 33])
def test_scan_equals_the_plain_loop_forward_and_backward(length):
    keep = torch.rand(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    add = normal(2, length, 3).double()
    keep, add = keep.requires_grad_(), add.requires_grad_()
    weight = normal(2, length, 3, seed=4).double()
    got, expected = LinearRecurrence.apply(keep, add), plain_recurrence(keep, add)
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), (keep, add)),
        torch.autograd.grad((expected * weight).sum(), (keep, add)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_scan_has_a_second_derivative():
    keep, add = torch.rand(1, 5, 2, dtype=torch.float64).requires_grad_(), normal(1, 5, 2).double().requires_grad_()
    assert torch.autograd.gradgradcheck(LinearRecurrence.apply, (keep, add))


def test_scan_is_safe_where_products_underflow():
    """Gates that all but close: quotients of running products would be 0/0."""
    keep, add = torch.full((1, 500, 2), 1e-6), normal(1, 500, 2)
    got = scan(keep, add)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, plain_recurrence(keep, add))
    # Planted fault: the textbook form h_t = P_t sum(add_s / P_s) with P the running product.
    product = keep.cumprod(dim=1)
    assert not torch.isfinite(product * (add / product).cumsum(dim=1)).all()


def test_min_gru_equals_its_formula():
    encoder, hidden = encoder_of("min_gru"), normal(B, S, HIDDEN).requires_grad_()
    torch.nn.init.normal_(encoder.gate.bias)
    start = normal(1, B, E * D, seed=3)
    z, n = torch.sigmoid(encoder.gate(hidden)), encoder.candidate(hidden)
    now, steps = start[0], []
    for t in range(S):
        now = (1 - z[:, t]) * now + z[:, t] * n[:, t]
        steps.append(now)
    expected = torch.stack(steps, dim=1)
    vectors, state = encoder(hidden, None, start)
    torch.testing.assert_close(vectors.flatten(2), expected)
    torch.testing.assert_close(state[0], now)
    loss, wanted = vectors.pow(3).sum(), expected.pow(3).sum()
    for got, right in zip(
        torch.autograd.grad(loss, [hidden, *encoder.parameters()]),
        torch.autograd.grad(wanted, [hidden, *encoder.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(got, right, atol=1e-4, rtol=1e-4)


def test_min_gru_runs_no_loop_over_tokens():
    """The number of autograd-visible operations grows with log S, not with S."""
    from torch.profiler import ProfilerActivity, profile

    def calls(length):
        encoder, hidden = encoder_of("min_gru"), normal(1, length, HIDDEN)
        with profile(activities=[ProfilerActivity.CPU]) as seen, torch.no_grad():
            encoder(hidden, None, None)
        return sum(event.count for event in seen.key_averages() if event.key == "aten::mul")

    assert calls(512) - calls(256) == calls(256) - calls(128) <= 4


def test_lstm_state_holds_outputs_and_cells():
    encoder, hidden = encoder_of("lstm"), normal(B, S, HIDDEN)
    vectors, state = encoder(hidden, None, None)
    outputs, (last, cell) = encoder.lstm(hidden)
    torch.testing.assert_close(vectors.flatten(2), outputs)
    torch.testing.assert_close(state, torch.cat([last, cell]))
    # Planted fault: a state whose cell is lost.
    again = encoder(hidden, None, state)[0]
    assert not torch.allclose(again, encoder(hidden, None, state * torch.tensor([1.0, 0.0])[:, None, None])[0])
