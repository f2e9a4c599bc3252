"""Tokenise documents and pack them into blocks, each token with its document and its domain.

Shapes: M blocks (here), S tokens each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spectra_exp.data.documents import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DOCUMENTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Stream:
    """The tokens of a list of documents end to end, int32 `[tokens]` each, with their documents and domains."""

    tokens: np.ndarray
    document_ids: np.ndarray
    domain_ids: np.ndarray

    def blocks(self, sequence_length: int, most_tokens: int | None = None) -> tuple[np.ndarray, ...]:
        """The three arrays as `[M, S]`: whole blocks from the start, the rest of the stream dropped.

        With `most_tokens`, no more blocks than those tokens fill, but at least one where the stream has it.
        """
        count = len(self.tokens) // sequence_length
        if most_tokens is not None:
            count = min(count, max(1, most_tokens // sequence_length))
        arrays = (self.tokens, self.document_ids, self.domain_ids)
        return tuple(array[: count * sequence_length].reshape(count, sequence_length) for array in arrays)


def tokenise(
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    end_token_id: int,
    domains: Sequence[str],
    first_document_id: int = 0,
) -> Stream:
    """The documents as one stream; each ends with the end token, which belongs to that document.

    Document ids count up from `first_document_id` in the order given; domain ids are places in `domains`.
    """
    pieces: list[np.ndarray] = []
    for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        texts = [document.text for document in documents[start : start + _DOCUMENTS_AT_ONCE]]
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            pieces.append(np.array([*encoding.ids, end_token_id], dtype=np.int32))
    lengths = [len(piece) for piece in pieces]
    place = {domain: index for index, domain in enumerate(domains)}
    document_ids = np.arange(first_document_id, first_document_id + len(documents), dtype=np.int32)
    domain_ids = np.array([place[document.domain] for document in documents], dtype=np.int32)
    return Stream(
        tokens=np.concatenate(pieces),
        document_ids=np.repeat(document_ids, lengths),
        domain_ids=np.repeat(domain_ids, lengths),
    )


def unigram_entropy(counts_V: np.ndarray) -> float:
    """The entropy of the counts in nats, 0 to ln V: the loss of knowing only how frequent each token is."""
    p = counts_V[counts_V > 0] / counts_V.sum()
    return float(-(p * np.log(p)).sum())


def unigram_cross_entropy(tokens: np.ndarray, counts_V: np.ndarray) -> float:
    """The mean loss in nats of `tokens` under the counts plus one each: what a model has to beat."""
    log_p = np.log(counts_V + 1.0) - np.log(counts_V.sum() + len(counts_V))
    return float(-log_p[tokens].mean())
