"""The routing of each token of a text: what every part of an analysis reads.

Letters: N tokens, L routed layers, K experts kept per token, E experts, H sampled tokens, d hidden size, B sequences,
S tokens each, V vocabulary, F numbers of one expert's weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from spectra_exp.measure.accumulate import EvaluationAccumulator, ranked_experts
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.next_token import next_token_losses
from spectra_exp.moe.record import RoutingRecord

# Tokens whose hidden states are kept.
HIDDEN_SAMPLE = 3000
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The text that a model is looked at on: int64 [rows, S] arrays; a domain is -1 where it is not known."""

    token_ids_MS: np.ndarray
    document_ids_MS: np.ndarray
    domain_ids_MS: np.ndarray
    domains: list[str]

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.token_ids_MS.size

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, document ids and domains [rows, S]."""
        return self.token_ids_MS, self.document_ids_MS, self.domain_ids_MS

    def batch(self, start: int, rows: int) -> Iterator[Tensor]:
        """`arrays` of at most so many rows, as tensors [B, S]."""
        for array in self.arrays:
            yield torch.from_numpy(array[start : start + rows].astype(np.int64))


@dataclass(frozen=True)
class Pass:
    """One forward pass: logits and, by layer, the routing executed, with every token's hidden state."""

    logits_BSV: Tensor
    records: Sequence[RoutingRecord]


class Engine(ABC):
    """A model in evaluation mode under the rule of inference, whose executed routing can be read."""

    model: nn.Module
    num_layers: int
    num_experts: int
    top_k: int
    vocabulary_size: int
    # Most tokens of one sequence, and sequences in one pass of `length` tokens each.
    longest: int

    @abstractmethod
    def forward(self, ids_BS: Tensor, documents_BS: Tensor) -> Pass:
        """Logits and routing of one batch of whole, unpadded sequences."""

    @abstractmethod
    def rows_at_once(self, length: int) -> int:
        """Sequences of `length` tokens in one pass, within memory."""

    @abstractmethod
    def weights_EF(self, layer: int) -> np.ndarray:
        """Each expert's flattened down-projection, float32."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Token by token, in reading order.

    `positions_N`: place in its sequence, from 0; `losses_N`: nats of predicting this token from those before it, NaN
    for the first of a sequence; `experts_NLK`: int16, executed, by falling weight, padded with -1; `weights_NLK`:
    float32, padded with 0; `probs_NLE`: float16, the router's distribution, None where it has none (`entropies_NL`,
    nats, is of the exact one); `hidden_LHd`: what the layers got of the tokens `sample_H`. `statistics`: per layer the
    exact sums that `spectra_exp.measure` reads.
    """

    token_ids_N: np.ndarray
    documents_N: np.ndarray
    domains_N: np.ndarray
    sequences_N: np.ndarray
    positions_N: np.ndarray
    losses_N: np.ndarray
    experts_NLK: np.ndarray
    weights_NLK: np.ndarray
    probs_NLE: np.ndarray | None
    entropies_NL: np.ndarray | None
    sample_H: np.ndarray
    hidden_LHd: np.ndarray
    statistics: list[LayerStatistics]

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.token_ids_N)

    @property
    def num_layers(self) -> int:
        """L."""
        return self.experts_NLK.shape[1]

    @property
    def first_NL(self) -> np.ndarray:
        """int16, the expert of largest weight; -1 for a token without one."""
        return self.experts_NLK[:, :, 0]

    @property
    def mean_entropy_N(self) -> np.ndarray:
        """The routing entropy of each token as a share of ln E, 0..1, mean over layers."""
        assert self.entropies_NL is not None
        return self.entropies_NL.mean(axis=1) / np.log(self.statistics[0].num_experts)

    def used(self, layer: int) -> np.ndarray:
        """bool [N, E]: which experts each token used in a layer."""
        used_NE = np.zeros((self.num_tokens, self.statistics[layer].num_experts + 1), dtype=bool)
        # -1 lands in the last column, cut off.
        np.put_along_axis(used_NE, self.experts_NLK[:, layer].astype(np.int64), True, axis=1)
        return used_NE[:, :-1]


@torch.no_grad()
def trace_text(
    engine: Engine, held_out: HeldOut, seed: int, track: Callable[[Sequence[int]], Iterable[int]] = iter
) -> Trace:
    """The trace of the whole text; `track` goes along with the passes."""
    rows, length = held_out.token_ids_MS.shape
    num_layers, top_k, rows_at_once = engine.num_layers, engine.top_k, engine.rows_at_once(length)
    first_document = int(held_out.document_ids_MS.min())
    accumulator = None
    if num_layers:
        num_documents = int(held_out.document_ids_MS.max()) - first_document + 1
        sizes = num_layers, engine.num_experts, top_k, engine.vocabulary_size
        accumulator = EvaluationAccumulator(*sizes, max(len(held_out.domains), 1), num_documents)
    sample_H = sampled(held_out.num_tokens, seed)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("losses", "experts", "weights", "probs", "entropies")}
    hidden: list[np.ndarray] = []
    for start in track(range(0, rows, rows_at_once)):
        ids_BS, documents_BS, domains_BS = held_out.batch(start, rows_at_once)
        made = engine.forward(ids_BS, documents_BS)
        columns["losses"].append(token_losses(made.logits_BSV, ids_BS))
        if accumulator is None:
            continue
        accumulator.update(
            made.records,
            TokenBatch.from_padded(ids_BS, torch.ones_like(ids_BS), documents_BS - first_document, domains_BS),
        )
        _add_routing(columns, made.records)
        wanted = sample_H[(sample_H >= start * length) & (sample_H < start * length + ids_BS.numel())] - start * length
        inputs_LNd = [r.hidden_Nd for r in made.records if r.hidden_Nd is not None]
        hidden.append(np.stack([own_Nd[torch.from_numpy(wanted)].float().cpu().numpy() for own_Nd in inputs_LNd]))
    places = np.arange(held_out.num_tokens)
    experts_NLK = _joined(columns["experts"], UNKNOWN, (held_out.num_tokens, num_layers, top_k), np.int16)
    return Trace(
        token_ids_N=held_out.token_ids_MS.ravel().astype(np.int64),
        documents_N=held_out.document_ids_MS.ravel() - first_document,
        domains_N=held_out.domain_ids_MS.ravel(),
        sequences_N=places // length,
        positions_N=places % length,
        losses_N=np.concatenate(columns["losses"]),
        experts_NLK=experts_NLK,
        weights_NLK=_joined(columns["weights"], 0, experts_NLK.shape, np.float32),
        probs_NLE=np.concatenate(columns["probs"]) if columns["probs"] else None,
        entropies_NL=np.concatenate(columns["entropies"]) if columns["entropies"] else None,
        sample_H=sample_H,
        hidden_LHd=np.concatenate(hidden, axis=1) if hidden else np.zeros((0, len(sample_H), 0), np.float32),
        statistics=accumulator.statistics() if accumulator else [],
    )


def sampled(num_tokens: int, seed: int) -> np.ndarray:
    """The tokens whose hidden states are kept, in reading order."""
    if num_tokens <= HIDDEN_SAMPLE:
        return np.arange(num_tokens)
    return np.sort(np.random.default_rng(seed).choice(num_tokens, HIDDEN_SAMPLE, replace=False))


def token_losses(logits_BSV: Tensor, ids_BS: Tensor) -> np.ndarray:
    """float32 [B * S]: nats of predicting each token, NaN for the first of a sequence."""
    losses_BS = np.full(ids_BS.shape, np.nan, dtype=np.float32)
    if ids_BS.shape[1] > 1:
        scored = next_token_losses(logits_BSV, ids_BS.to(logits_BSV.device))
        losses_BS[:, 1:] = scored.view(len(ids_BS), -1).float().cpu().numpy()
    return losses_BS.ravel()


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many of the places 0 to `count` - 1, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def mean_of(values: np.ndarray | Sequence[float | None]) -> float | None:
    """The mean of the values that are finite; None without any."""
    values = values if isinstance(values, np.ndarray) else np.array(values, dtype=float)
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def group_counts(group_N: np.ndarray, experts_NK: np.ndarray, num_groups: int, num_experts: int) -> np.ndarray:
    """int64 [groups, E]: assignments of each expert to the tokens of each group; -1 is no group, and no expert."""
    real_NK = (group_N >= 0)[:, None] & (experts_NK >= 0)
    cells_NK = group_N[:, None].astype(np.int64) * num_experts + experts_NK
    return np.bincount(cells_NK[real_NK], minlength=num_groups * num_experts).reshape(num_groups, num_experts)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row's counts as shares of their sum; NaN in a row without any."""
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def sequence_bins(positions_N: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Each token's bin of its place in its sequence, and the first place of each bin; at most so many, of one width."""
    length = int(positions_N.max()) + 1
    width = -(-length // most)
    return positions_N // width, np.arange(0, length, width)


def _add_routing(columns: dict[str, list[np.ndarray]], records: Sequence[RoutingRecord]) -> None:
    """Add one pass's experts, weights and distributions, [n, L, ...] each."""
    ranked = [ranked_experts(record.weights_NE, record.chosen_NE) for record in records]
    width = max(int(record.chosen_NE.sum(dim=1).max()) for record in records)
    for name, place in (("experts", 0), ("weights", 1)):
        columns[name].append(torch.stack([pair[place][:, :width] for pair in ranked], dim=1).cpu().numpy())
    known = [record.probs_NE for record in records if record.probs_NE is not None]
    if len(known) == len(records):
        probs_NLE = torch.stack([probs_NE.float() for probs_NE in known], dim=1)
        columns["entropies"].append(torch.special.entr(probs_NLE).sum(dim=2).cpu().numpy())
        columns["probs"].append(probs_NLE.half().cpu().numpy())


def _joined(pieces: list[np.ndarray], fill: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The pieces one after another, padded to the widest and at least to `shape`'s width."""
    if not pieces:
        return np.full(shape, fill, dtype=dtype)
    width = max(shape[2], *(piece.shape[2] for piece in pieces))
    padded = [np.pad(p, ((0, 0), (0, 0), (0, width - p.shape[2])), constant_values=fill) for p in pieces]
    return np.concatenate(padded).astype(dtype)
