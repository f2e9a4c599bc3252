"""Documents, and their split into training and validation before anything is tokenised."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spectra_exp.foundations.errors import ConfigError

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Document:
    """One text with its domain and a name that is unique in its source.

    `spans`: of a conversation, the character ranges that the assistant says; None for a plain text.
    """

    text: str
    domain: str
    id: str
    spans: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Splits:
    """The two disjoint lists of documents that a corpus is made of; `notes`: what was left out of them, a line each."""

    train: list[Document]
    validation: list[Document]
    notes: list[str] = field(default_factory=list)


def digest(*parts: object) -> str:
    """The sha256 of the parts, as 64 hex digits; equal on every machine and Python version.

    Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.
    """
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(f"{len(data)}:".encode())
        state.update(data)
    return state.hexdigest()


def hash_fraction(*parts: object) -> float:
    """A number in [0, 1) drawn by the hash of the parts."""
    return int(digest(*parts)[:13], 16) / 16**13


def split_by_document(documents: Sequence[Document], fraction: float, seed: int) -> Splits:
    """The documents parted so that about `fraction` of each domain's distinct texts are for validation.

    Copies of one text stay on the same side. A domain with a single text is training only. Which texts are
    held out depends on the texts and the seed, not on their order in the file.
    """
    domain_of_text: dict[str, str] = {}
    for document in documents:
        domain_of_text.setdefault(document.text, document.domain)
    texts_of_domain: dict[str, list[str]] = defaultdict(list)
    for text, domain in domain_of_text.items():
        texts_of_domain[domain].append(text)
    held_out: set[str] = set()
    for texts in texts_of_domain.values():
        if len(texts) > 1:
            count = min(len(texts) - 1, max(1, round(fraction * len(texts))))
            held_out.update(sorted(texts, key=lambda text: digest("split", seed, text))[:count])
    return Splits(
        train=[d for d in documents if d.text not in held_out],
        validation=[d for d in documents if d.text in held_out],
    )


def without_leaks(splits: Splits) -> Splits:
    """The splits without the validation documents whose exact text is also a training document."""
    seen = {document.text for document in splits.train}
    return replace(splits, validation=[d for d in splits.validation if d.text not in seen])


def without_domain(splits: Splits, domain: str | None) -> Splits:
    """The splits without the training documents of `domain`; as they are for None.

    Raises ConfigError, with the nearest name, for a domain that training does not have or that nothing would score.
    """
    if domain is None:
        return splits
    known = {document.domain for document in splits.train}
    if domain not in known:
        raise ConfigError.unknown("data.hold_out_domain", domain, known)
    if all(document.domain != domain for document in splits.validation):
        raise ConfigError(
            "data.hold_out_domain",
            f"no validation document is of '{domain}', so that nothing would be measured",
            "give validation documents of it, or hold another domain out",
        )
    if known == {domain}:
        raise ConfigError(
            "data.hold_out_domain", f"'{domain}' is the only domain of the training split", "give another, or null"
        )
    return replace(splits, train=[document for document in splits.train if document.domain != domain])


def mixed_order(documents: Sequence[Document]) -> list[Document]:
    """The documents in a fixed shuffled order in which any long stretch has every domain in proportion.

    The n documents of a domain get one random place in each nth of the sequence.
    """
    by_domain: dict[str, list[tuple[str, Document]]] = defaultdict(list)
    for index, document in enumerate(documents):
        by_domain[document.domain].append((digest("order", index, document.id), document))
    placed: list[tuple[float, str, Document]] = []
    for ranked in by_domain.values():
        ranked.sort(key=lambda pair: pair[0])
        for rank, (key, document) in enumerate(ranked):
            placed.append(((rank + hash_fraction("place", key)) / len(ranked), key, document))
    return [document for _, _, document in sorted(placed, key=lambda item: item[:2])]


def require_documents(splits: Splits, key: str) -> None:
    """Raise ConfigError when either split is left without a document."""
    if not splits.train:
        raise ConfigError(key, "the training split has no usable document", "give documents with some text")
    if not splits.validation:
        raise ConfigError(
            key,
            "no document is left for validation (a single one, or all of them also in training)",
            "give more documents, or a validation file with others",
        )
