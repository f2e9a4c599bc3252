"""The next-token loss, the one function behind every training and evaluation loss, and its form for large vocabularies.

Shapes: B sequences, S tokens each, N positions, C positions of one chunk, d hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from spectra_exp.moe.experts import autocast_dtype

# Label of a position that is not scored.
IGNORED = -100
# Logits held at once, in float32 numbers: 64 MB, and 512 MB on a GPU, which many small chunks would leave waiting.
CHUNK_NUMBERS, GPU_CHUNK_NUMBERS = 2**24, 2**27
# Backbones whose logits are their head's linear map of the last hidden state and nothing more (no scale, no soft cap).
PLAIN_HEADS = ("llama", "mistral", "qwen2", "qwen3")


@dataclass
class TokenScores:
    """loss_N: next-token cross-entropy, nats, float32, 0 where not scored. correct_N: the likeliest token was right.

    Flat, N = B * (S-1), in reading order: entry t is the logits at t against the label at t+1.
    """

    loss_N: Tensor
    correct_N: Tensor


def next_labels(labels_BS: Tensor) -> Tensor:
    """What each position but the last of a sequence is scored on, flat [B * (S-1)]."""
    return labels_BS[:, 1:].flatten()


def loss_of_log_probs(log_probs_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Cross-entropy [N] in nats; positions labelled IGNORED give 0."""
    ignored_N = labels_N == IGNORED
    picked_N = log_probs_NV.gather(1, labels_N.masked_fill(ignored_N, 0)[:, None])[:, 0]
    return (-picked_N).masked_fill(ignored_N, 0.0)


def next_token_losses(logits_BSV: Tensor, labels_BS: Tensor) -> Tensor:
    """Next-token cross-entropy in nats, float32, flat [B * (S-1)], out of whole logits."""
    return loss_of_log_probs(log_probs_of_logits(logits_BSV), next_labels(labels_BS))


def log_probs_of_logits(logits_BSV: Tensor) -> Tensor:
    """Log-probabilities [B * (S-1), V], float32, at every position that is scored."""
    return torch.log_softmax(logits_BSV[:, :-1].float().flatten(0, 1), dim=-1)


def mean_over_labels(total: Tensor, labels_BS: Tensor) -> Tensor:
    """A sum of losses over the number of labelled positions."""
    return total / (labels_BS[:, 1:] != IGNORED).sum().clamp(min=1)


def causal_lm_loss(logits_BSV: Tensor, labels_BS: Tensor) -> Tensor:
    """Mean of `next_token_losses` over the labelled positions."""
    return mean_over_labels(next_token_losses(logits_BSV, labels_BS).sum(), labels_BS)


def plain_head(backbone: PreTrainedModel) -> nn.Linear | None:
    """The head of a backbone whose logits are that linear map alone; None for others.

    Also None for a head whose weight is spread over ranks (ZeRO-3), which only its own forward gathers.
    """
    head = backbone.get_output_embeddings()
    if backbone.config.model_type in PLAIN_HEADS and type(head) is nn.Linear and head.bias is None:
        return None if hasattr(head.weight, "ds_id") else head
    return None


def chunked_lm_loss(hidden_BSd: Tensor, head: nn.Linear, labels_BS: Tensor) -> Tensor:
    """`causal_lm_loss` of the head's logits, of which only a chunk is held at a time, its gradient included."""
    if not torch.is_grad_enabled():
        return mean_over_labels(chunked_scores(hidden_BSd, head, labels_BS).loss_N.sum(), labels_BS)
    hidden_Nd = hidden_BSd[:, :-1].flatten(0, 1)
    total = _ChunkedLoss.apply(hidden_Nd, head.weight, next_labels(labels_BS), autocast_dtype(hidden_BSd))
    return mean_over_labels(total, labels_BS)


@torch.no_grad()
def chunked_scores(hidden_BSd: Tensor, head: nn.Linear, labels_BS: Tensor) -> TokenScores:
    """Losses and hits of the head's logits, of which only a chunk is held at a time."""
    dtype = autocast_dtype(hidden_BSd)
    weight_Vd, labels_N = head.weight.to(dtype), next_labels(labels_BS)
    parts = [
        _scores(_log_probs(hidden_Cd, weight_Vd), labels_C)
        for hidden_Cd, labels_C in _chunks(hidden_BSd[:, :-1].flatten(0, 1).to(dtype), labels_N, len(weight_Vd))
    ]
    return TokenScores(torch.cat([p.loss_N for p in parts]), torch.cat([p.correct_N for p in parts]))


def scores_of_logits(logits_BSV: Tensor, labels_BS: Tensor) -> TokenScores:
    """Losses and hits out of whole logits."""
    return _scores(log_probs_of_logits(logits_BSV), next_labels(labels_BS))


def _scores(log_probs_NV: Tensor, labels_N: Tensor) -> TokenScores:
    loss_N = loss_of_log_probs(log_probs_NV, labels_N)
    # amax is ten times as fast as argmax on a CPU; argmax then decides ties, as the first of them.
    correct_N = (-loss_N >= log_probs_NV.amax(dim=-1)) & (labels_N != IGNORED)
    row_H = correct_N.nonzero()[:, 0]
    correct_N[row_H] = log_probs_NV[row_H].argmax(dim=-1) == labels_N[row_H]
    return TokenScores(loss_N, correct_N)


class _ChunkedLoss(torch.autograd.Function):
    """Sum over positions of the cross-entropy of `hidden W^T`; the gradient of a chunk is made while it is held.

    The incoming gradient is one number, so it can wait: three products in all, as without chunks.
    *Source:* the fused linear cross-entropy of Liger Kernel (arXiv 2410.10989), 3.2.
    """

    @staticmethod
    def forward(ctx: Any, hidden_Nd: Tensor, weight_Vd: Tensor, labels_N: Tensor, dtype: torch.dtype) -> Tensor:
        cast_Nd, cast_Vd = hidden_Nd.to(dtype), weight_Vd.to(dtype)
        total = hidden_Nd.new_zeros((), dtype=torch.float32)
        to_hidden, to_weight = ctx.needs_input_grad[:2]
        gradient_Nd = torch.empty_like(hidden_Nd) if to_hidden else None
        # Sums over chunks are float32: in the weight's own half precision each one would be rounded.
        gradient_Vd = torch.zeros_like(weight_Vd, dtype=torch.float32) if to_weight else None
        start = 0
        # What is not scored is zero before and after: a mask over [C, V] would be a pass more over the largest tensor.
        ignored_N1 = (labels_N == IGNORED)[:, None]
        for hidden_Cd, labels_C in _chunks(cast_Nd.masked_fill(ignored_N1, 0), labels_N, len(weight_Vd)):
            log_probs_CV = _log_probs(hidden_Cd, cast_Vd)
            total = total + loss_of_log_probs(log_probs_CV, labels_C).sum()
            if to_hidden or to_weight:
                slope_CV = _slope_of_logits(log_probs_CV, labels_C).to(dtype)
                if gradient_Nd is not None:
                    gradient_Nd[start : start + len(labels_C)] = slope_CV @ cast_Vd
                if gradient_Vd is not None:
                    _add_product(gradient_Vd, slope_CV.T, hidden_Cd)
            start += len(labels_C)
        if gradient_Nd is not None:
            gradient_Nd.masked_fill_(ignored_N1, 0)
        ctx.save_for_backward(gradient_Nd, None if gradient_Vd is None else gradient_Vd.to(weight_Vd.dtype))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * incoming.to(g.dtype) for g in ctx.saved_tensors]
        return *scaled, None, None


def _slope_of_logits(log_probs_CV: Tensor, labels_C: Tensor) -> Tensor:
    """Gradient of the summed loss with respect to the logits, in the place of the log-probabilities.

    Of a position that is not scored it is anything.
    """
    slope_CV = log_probs_CV.exp_()
    label_C1 = labels_C.clamp(min=0)[:, None]
    return slope_CV.scatter_add_(1, label_C1, slope_CV.new_full(label_C1.shape, -1.0))


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    if into.dtype == left.dtype:
        into.addmm_(left, right)
    else:
        into += left @ right


def _log_probs(hidden_Cd: Tensor, weight_Vd: Tensor) -> Tensor:
    return torch.log_softmax(linear(hidden_Cd, weight_Vd).float(), dim=-1)


def _chunks(hidden_Nd: Tensor, labels_N: Tensor, vocabulary: int) -> Any:
    numbers = GPU_CHUNK_NUMBERS if hidden_Nd.is_cuda else CHUNK_NUMBERS
    size = max(1, numbers // vocabulary)
    return zip(hidden_Nd.split(size), labels_N.split(size), strict=True)
