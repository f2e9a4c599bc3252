"""Tokenise documents and pack them into blocks, each token with its document and its domain.

Shapes: M blocks (here), S tokens each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from spectra_exp.data.documents import Document
from spectra_exp.foundations import stopping

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DOCUMENTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Stream:
    """The tokens of a list of documents end to end, int32 `[tokens]` each, with their documents and domains.

    `said`: bool, the tokens that an assistant says; None where the documents are no conversations.
    """

    tokens: np.ndarray
    document_ids: np.ndarray
    domain_ids: np.ndarray
    said: np.ndarray | None = None

    def blocks(self, sequence_length: int, most_tokens: int | None = None) -> tuple[np.ndarray, ...]:
        """The three arrays, and `said` where there is that, as `[M, S]`: whole blocks, the rest dropped.

        With `most_tokens`, no more blocks than those tokens fill, but at least one where the stream has it.
        """
        count = len(self.tokens) // sequence_length
        if most_tokens is not None:
            count = min(count, max(1, most_tokens // sequence_length))
        arrays = [a for a in (self.tokens, self.document_ids, self.domain_ids, self.said) if a is not None]
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
    said: list[np.ndarray] = []
    spoken = any(document.spans is not None for document in documents)
    # Only the slower one knows where in the text a token lies.
    encode = tokenizer.encode_batch if spoken else tokenizer.encode_batch_fast
    for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        some = documents[start : start + _DOCUMENTS_AT_ONCE]
        texts = [document.text for document in some]
        encodings = stopping.interruptibly(partial(encode, texts, add_special_tokens=False))
        for document, encoding in zip(some, encodings, strict=True):
            pieces.append(np.array([*encoding.ids, end_token_id], dtype=np.int32))
            if spoken:
                said.append(_said(encoding.offsets, document.spans or ()))
    lengths = [len(piece) for piece in pieces]
    place = {domain: index for index, domain in enumerate(domains)}
    document_ids = np.arange(first_document_id, first_document_id + len(documents), dtype=np.int32)
    domain_ids = np.array([place[document.domain] for document in documents], dtype=np.int32)
    return Stream(
        tokens=np.concatenate(pieces),
        document_ids=np.repeat(document_ids, lengths),
        domain_ids=np.repeat(domain_ids, lengths),
        said=np.concatenate(said) if spoken else None,
    )


def _said(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Whether each token begins in one of the spans, and False for the end token."""
    starts = np.array([start for start, _ in offsets])
    inside = np.zeros(len(starts) + 1, dtype=bool)
    for begin, end in spans:
        inside[:-1] |= (starts >= begin) & (starts < end)
    return inside


def unigram_entropy(counts_V: np.ndarray) -> float:
    """The entropy of the counts in nats, 0 to ln V: the loss of knowing only how frequent each token is."""
    p = counts_V[counts_V > 0] / counts_V.sum()
    return float(-(p * np.log(p)).sum())


def unigram_cross_entropy(tokens: np.ndarray, counts_V: np.ndarray) -> float:
    """The mean loss in nats of `tokens` under the counts plus one each: what a model has to beat."""
    log_p = np.log(counts_V + 1.0) - np.log(counts_V.sum() + len(counts_V))
    return float(-log_p[tokens].mean())
