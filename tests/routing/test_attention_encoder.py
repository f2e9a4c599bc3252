"""The attention encoder by hand, its memory, and its mask after a state.

Letters: B sequences, S tokens each, d hidden size, E experts, D router dimension.
"""

from __future__ import annotations

import pytest
import torch
from router_cases import normal
from test_recurrent_encoders import HIDDEN, D, E, S, encoder_of, random_mask
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectra_exp.routing.sequence import ENCODERS


def test_attention_by_hand():
    """Two tokens, one expert, D = 1: token 1 weighs both values by softmax(q1 k)."""
    encoder = ENCODERS["attention"](1, 1, 1)
    encoder.linear.weight.data = torch.tensor([[0.5], [2.0], [3.0]])
    vectors, state = encoder(torch.tensor([[[1.0], [-1.0]]]), None, None)
    weight = torch.softmax(torch.tensor([-0.5 * 2.0, -0.5 * -2.0]), dim=0)
    expected = [3.0 + 3.0, -3.0 + float(weight[0] * 3 + weight[1] * -3)]
    torch.testing.assert_close(vectors.flatten(), torch.tensor(expected))
    torch.testing.assert_close(state[:, 0], torch.tensor([[2.0, 3.0, 1.0], [-2.0, -3.0, 1.0]]))


def largest_saved(encoder, hidden, mask, state) -> int:
    """Elements of the largest tensor that a pass keeps for its gradient."""
    sizes = []

    def seen(tensor):
        sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        encoder(hidden, mask, state)[0].sum().backward()
    return max(sizes)


@pytest.mark.parametrize("case", ["plain", "padded", "after a state"])
def test_attention_keeps_nothing_quadratic(case):
    length = 200
    encoder, hidden = encoder_of("attention"), normal(1, length, HIDDEN).requires_grad_()
    mask = random_mask(1, 1, length) if case == "padded" else None
    state = encoder(hidden.detach(), None, None)[1].detach() if case == "after a state" else None
    assert largest_saved(encoder, hidden, mask, state) < length * length
    # Planted fault: the kernel that forms the S x S weights of each head.
    with sdpa_kernel(SDPBackend.MATH):
        assert largest_saved(encoder, hidden, mask, state) >= E * length * length


def test_attention_after_a_state_needs_the_shifted_mask():
    """Planted fault: is_causal over unequal lengths lets the first new token see the first old one only."""
    encoder, hidden = encoder_of("attention"), normal(1, S, HIDDEN)
    whole, _ = encoder(hidden, None, None)
    query, key, value = (x.unflatten(-1, (E, D)).transpose(1, 2) for x in encoder.linear(hidden).chunk(3, dim=-1))
    wrong = torch.nn.functional.scaled_dot_product_attention(query[:, :, 5:], key, value, is_causal=True)
    wrong = (value[:, :, 5:] + wrong).transpose(1, 2)
    assert not torch.allclose(wrong, whole[:, 5:], atol=1e-3)


def test_attention_equals_its_formula():
    encoder, hidden = encoder_of("attention"), normal(2, S, HIDDEN)
    query, key, value = (x.unflatten(-1, (E, D)) for x in encoder.linear(hidden).chunk(3, dim=-1))
    logits = torch.einsum("bsed,bted->best", query, key)
    seen = torch.ones(S, S, dtype=torch.bool).tril()

    def formula(scale):
        weights = torch.softmax((logits * scale).masked_fill(~seen, -torch.inf), dim=-1)
        return value + torch.einsum("best,bted->bsed", weights, value)

    torch.testing.assert_close(encoder(hidden, None, None)[0], formula(D**-0.5))
    # Planted fault: logits that are not divided by sqrt(D).
    assert not torch.allclose(formula(1.0), formula(D**-0.5), atol=1e-3)
