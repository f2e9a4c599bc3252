"""The texts that were typed or named, as documents."""

from __future__ import annotations

from spectra_exp.data.documents import UNLABELLED, Document
from spectra_exp.data.sources.files import documents_of
from spectra_exp.foundations.errors import ConfigError


def read_texts(text: str | None, file: str | None) -> list[Document]:
    """The typed text, then those of the file. Raises ConfigError for one without any character."""
    found = []
    if text is not None:
        if not text.strip():
            raise ConfigError("text", "is empty", "give at least one word")
        found.append(Document(text, UNLABELLED, "text"))
    if file is not None:
        found += documents_of(file, "texts")
    return found
