"""The loss in chunks equals the loss of whole logits, which equals torch's and transformers'.

Shapes: B sequences, S tokens each, d hidden size, V vocabulary.
"""

from __future__ import annotations

import pytest
import torch
from moe_cases import VOCABULARY, backbone_of, model_of
from torch import nn
from torch.nn.functional import cross_entropy
from transformers.loss.loss_utils import ForCausalLMLoss

from spectra_exp.moe import next_token
from spectra_exp.moe.next_token import (
    IGNORED,
    causal_lm_loss,
    chunked_lm_loss,
    chunked_scores,
    next_token_losses,
    plain_head,
    scores_of_logits,
)

B, S, D, V = 3, 11, 8, 29


@pytest.fixture(params=[V, 7 * V, 1000 * V], ids=["one", "seven", "all"])
def chunk(request, monkeypatch) -> int:
    monkeypatch.setattr(next_token, "CHUNK_NUMBERS", request.param)
    return request.param // V


def inputs(seed: int = 0) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    labels = torch.randint(0, V, (B, S))
    labels[0, 3:6] = labels[2, -1] = IGNORED
    return torch.randn(B, S, D, requires_grad=True), nn.Linear(D, V, bias=False), labels


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(3.0 * loss, of))


def test_whole_logits_give_what_torch_and_transformers_give() -> None:
    hidden, head, labels = inputs()
    logits = head(hidden)
    theirs = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(next_token_losses(logits, labels), theirs)
    torch.testing.assert_close(causal_lm_loss(logits, labels), ForCausalLMLoss(logits, labels, V))


def test_chunks_give_the_loss_and_the_gradients_of_whole_logits(chunk) -> None:
    hidden, head, labels = inputs()
    whole, parts = causal_lm_loss(head(hidden), labels), chunked_lm_loss(hidden, head, labels)
    torch.testing.assert_close(parts, whole)
    expected = gradients(whole, hidden, head.weight)
    torch.testing.assert_close(gradients(parts, hidden, head.weight), expected)
    # Planted fault: positions that are not scored have a part in it.
    scored = chunked_lm_loss(hidden, head, labels.clamp(min=0))
    assert (gradients(scored, hidden)[0] - expected[0]).abs().max() > 1e-3


def test_chunks_give_the_scores_of_whole_logits(chunk) -> None:
    hidden, head, labels = inputs()
    whole, parts = scores_of_logits(head(hidden), labels), chunked_scores(hidden, head, labels)
    torch.testing.assert_close(parts.loss_N, whole.loss_N.detach())
    assert torch.equal(parts.correct_N, whole.correct_N) and len(parts.correct_N) == B * (S - 1)
    assert torch.equal(parts.correct_N, head(hidden)[:, :-1].argmax(-1).flatten() == labels[:, 1:].flatten())


def test_of_tokens_that_tie_the_first_is_the_guess():
    logits_BSV = torch.zeros(1, 4, 5)
    assert scores_of_logits(logits_BSV, torch.tensor([[3, 0, 1, IGNORED]])).correct_N.tolist() == [True, False, False]


def test_no_more_than_a_chunk_of_logits_is_held(chunk, monkeypatch) -> None:
    rows, own = [], next_token._log_probs
    monkeypatch.setattr(
        next_token, "_log_probs", lambda hidden, weight: (rows.append(len(hidden)), own(hidden, weight))[1]
    )
    hidden, head, labels = inputs()
    chunked_lm_loss(hidden, head, labels).backward()
    assert max(rows) <= chunk and sum(rows) == B * (S - 1)


def test_what_is_frozen_gets_no_gradient() -> None:
    hidden, head, labels = inputs()
    head.requires_grad_(False)
    chunked_lm_loss(hidden, head, labels).backward()
    assert hidden.grad is not None and head.weight.grad is None


def test_without_a_gradient_none_is_made(monkeypatch) -> None:
    monkeypatch.setattr(next_token, "_slope_of_logits", None)
    hidden, head, labels = inputs()
    with torch.no_grad():
        loss = chunked_lm_loss(hidden, head, labels)
    torch.testing.assert_close(loss, causal_lm_loss(head(hidden), labels).detach())
    with pytest.raises(TypeError):
        chunked_lm_loss(hidden, head, labels)


def test_bfloat16_weights_sum_their_gradient_over_chunks_in_float32(monkeypatch) -> None:
    hidden, head, labels = inputs()
    half_hidden = hidden.detach().bfloat16().requires_grad_()
    half_head = nn.Linear(D, V, bias=False).bfloat16()
    with torch.no_grad():
        half_head.weight.copy_(head.weight)
    found = []
    for size in (1000 * V, V):
        monkeypatch.setattr(next_token, "CHUNK_NUMBERS", size)
        found.append(gradients(chunked_lm_loss(half_hidden, half_head, labels), half_head.weight)[0].float())
    assert (found[1] - found[0]).norm() / found[0].norm() < 6e-3


def test_bfloat16_products_are_those_of_autocast() -> None:
    hidden, head, labels = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        whole, parts = causal_lm_loss(head(hidden), labels), chunked_lm_loss(hidden, head, labels)
    torch.testing.assert_close(parts, whole)
    assert parts != chunked_lm_loss(hidden, head, labels)
    expected = gradients(whole, hidden, head.weight)
    torch.testing.assert_close(gradients(parts, hidden, head.weight), expected, rtol=0.03, atol=0.003)


def test_a_training_pass_without_logits_trains_alike() -> None:
    ids = torch.randint(0, VOCABULARY, (2, 9))
    with_logits, without = model_of("switch"), model_of("switch")
    one, other = with_logits(input_ids=ids, labels=ids), without(input_ids=ids, labels=ids, return_logits=False)
    assert other.logits is None and one.hidden is None
    torch.testing.assert_close(other.loss, one.loss)
    one.loss.backward(), other.loss.backward()
    for (name, p), (_, q) in zip(with_logits.named_parameters(), without.named_parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_a_head_that_is_more_than_a_linear_map_forms_its_logits() -> None:
    model = model_of("switch")
    assert plain_head(model.backbone) is model.get_output_embeddings()
    model.backbone.config = backbone_of()
    model.backbone.config.model_type = "gemma2"
    ids = torch.randint(0, VOCABULARY, (1, 5))
    assert model(input_ids=ids, labels=ids, return_logits=False).logits.shape == (1, 5, VOCABULARY)
