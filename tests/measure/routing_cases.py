"""Hand-made and random routings for the tests of records and metrics.

Letters: N tokens, E experts, L layers.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from spectra_exp.measure.accumulate import EvaluationAccumulator
from spectra_exp.measure.tokens import TokenBatch
from spectra_exp.moe.record import RoutingRecord


def chosen_of(sets: list[list[int]], num_experts: int) -> torch.Tensor:
    """[N, E] bool from each token's experts."""
    chosen_NE = torch.zeros(len(sets), num_experts, dtype=torch.bool)
    for n, experts in enumerate(sets):
        chosen_NE[n, experts] = True
    return chosen_NE


def record_of(chosen_NE: torch.Tensor, layer: int = 0, **fields) -> RoutingRecord:
    """A record of these assignments; equal weights unless given."""
    weights_NE = chosen_NE / chosen_NE.sum(1, keepdim=True).clamp_min(1)
    values = dict(
        layer=layer,
        chosen_NE=chosen_NE,
        weights_NE=weights_NE,
        probs_NE=None,
        representation_ED=None,
        output_sum_ED=None,
        losses={},
        figures={},
    )
    return RoutingRecord(**(values | fields))


def tokens_of(num_tokens: int, ids=None, documents=None, domains=None, sequences=None) -> TokenBatch:
    """Token ids 0.. of one sequence, one document and one domain, unless given."""
    zeros = [0] * num_tokens
    ids = list(range(num_tokens)) if ids is None else ids
    columns = (ids, documents or zeros, domains or zeros, sequences or zeros)
    return TokenBatch(*(torch.as_tensor(c, dtype=torch.int64) for c in columns))


def cut(record: RoutingRecord, rows: slice) -> RoutingRecord:
    """The record of some of its tokens."""
    probs = None if record.probs_NE is None else record.probs_NE[rows]
    fields = vars(record) | dict(chosen_NE=record.chosen_NE[rows], weights_NE=record.weights_NE[rows], probs_NE=probs)
    return RoutingRecord(**fields)


def accumulator_of(
    records: list[RoutingRecord], tokens: TokenBatch, top_k: int, probes: int = 0
) -> EvaluationAccumulator:
    """An empty accumulator that these fit into."""
    return EvaluationAccumulator(
        num_layers=len(records),
        num_experts=records[0].chosen_NE.shape[1],
        top_k=top_k,
        vocabulary_size=int(tokens.token_ids_N.max()) + 1,
        num_domains=int(tokens.domain_ids_N.max()) + 1,
        num_documents=int(tokens.document_ids_N.max()) + 1,
        probe_tokens=probes,
    )


def statistics_of(records, tokens, top_k: int, probes: int = 0, batches: list[slice] | None = None):
    """The layers' statistics, fed as one batch or as these."""
    accumulator = accumulator_of(records, tokens, top_k, probes)
    for rows in batches or [slice(None)]:
        part = TokenBatch(*(column[rows] for column in vars(tokens).values()))
        accumulator.update([cut(r, rows) for r in records], part)
    return accumulator.statistics()


def layer_of(sets: list[list[int]], num_experts: int, top_k: int, **tokens):
    """The statistics of a single layer from each token's experts."""
    records = [record_of(chosen_of(sets, num_experts))]
    return statistics_of(records, tokens_of(len(sets), **tokens), top_k)[0]


@st.composite
def routings(draw, min_layers: int = 1, ragged: bool = True):
    """(records, tokens, k): random routing of a few sequences; ragged sets have 0..E experts, else exactly k."""
    seed = draw(st.integers(0, 2**31))
    num_layers, num_experts = draw(st.integers(min_layers, 3)), draw(st.integers(2, 6))
    top_k = draw(st.integers(1, num_experts))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(seed)
    num_tokens, records = sum(lengths), []
    for layer in range(num_layers):
        probs_NE = torch.softmax(2 * torch.randn(num_tokens, num_experts, generator=generator), dim=1)
        chosen_NE = torch.zeros(num_tokens, num_experts, dtype=torch.bool)
        if ragged:
            chosen_NE = torch.rand(num_tokens, num_experts, generator=generator) < top_k / num_experts
        else:
            chosen_NE.scatter_(1, probs_NE.topk(top_k, dim=1).indices, True)
        weights_NE = probs_NE * chosen_NE
        records.append(record_of(chosen_NE, layer, weights_NE=weights_NE, probs_NE=probs_NE))
    sequences = [row for row, length in enumerate(lengths) for _ in range(length)]
    # Documents change inside sequences too, as in packed text; a document never has two domains.
    documents = (torch.rand(num_tokens, generator=generator) < 0.3).cumsum(0)
    return (
        records,
        TokenBatch(
            token_ids_N=torch.randint(0, 7, (num_tokens,), generator=generator),
            document_ids_N=documents,
            domain_ids_N=documents % 3,
            sequence_ids_N=torch.tensor(sequences),
        ),
        top_k,
    )
