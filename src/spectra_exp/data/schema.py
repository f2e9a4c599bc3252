"""What a source of documents is: its options with their units and ranges, and how it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from spectra_exp.data.documents import Splits
from spectra_exp.foundations.bounds import LARGEST_COUNT, LARGEST_LENGTH, LARGEST_SEED
from spectra_exp.foundations.modules import import_all
from spectra_exp.foundations.options import option
from spectra_exp.foundations.registry import check_free

# 256 bytes and the end-of-text token: the smallest vocabulary that can spell any text.
SMALLEST_VOCABULARY = 257


@dataclass
class DataConfig(ABC):
    """What every source has: how its documents become tokens and blocks."""

    # The key to name where no document is left.
    documents_key: ClassVar[str] = "data"

    name: str = option("", "where the documents come from")
    sequence_length: int = option(128, "length of a block", unit="tokens", minimum=2, maximum=LARGEST_LENGTH)
    tokenizer: str | None = option(
        None,
        "a local tokenizer.json or its folder, or source, that of model.source; null trains a byte-level BPE",
        path=True,
    )
    vocabulary_size: int = option(
        2048,
        "size of the tokenizer trained here, at most; without effect on a named tokenizer",
        unit="tokens",
        minimum=SMALLEST_VOCABULARY,
        maximum=LARGEST_LENGTH,
    )
    cross_document: bool = option(
        True, "in packed blocks, let attention and recurrent state cross from one document to the next"
    )
    evaluation_tokens: int = option(
        32768,
        "validation tokens that are scored, in whole blocks, as far as the split has them",
        unit="tokens",
        minimum=2,
        maximum=LARGEST_COUNT,
    )
    final_evaluation_tokens: int | None = option(
        None,
        "validation tokens behind the figures at the end of the run; null: those of evaluation_tokens",
        unit="tokens",
        minimum=2,
        maximum=LARGEST_COUNT,
    )
    hold_out_domain: str | None = option(
        None, "a domain left out of training, and of the tokenizer trained here; it is still scored. null: none"
    )
    probe_tokens: int = option(
        4096,
        "tokens, the first of the scored ones, whose routing is written down",
        unit="tokens",
        minimum=2,
        maximum=LARGEST_COUNT,
    )

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for what can be known to be wrong without reading the documents."""

    @abstractmethod
    def content_digest(self) -> str:
        """The hash of what the source would read or write, without tokenising anything."""

    @abstractmethod
    def read_splits(self) -> Splits:
        """The documents of both splits."""


@dataclass
class SplitDataConfig(DataConfig):
    """A source that may come without a validation split of its own."""

    validation_fraction: float = option(
        0.1, "part of each domain's documents held out where no validation split exists", above=0, maximum=0.5
    )
    split_seed: int = option(
        0, "which documents are held out where no validation split exists", minimum=0, maximum=LARGEST_SEED
    )


_REGISTRY: dict[str, type[DataConfig]] = {}


def register_source(cls: type[DataConfig]) -> type[DataConfig]:
    """Class decorator: makes a source known under its default name. Raises ValueError for none or a taken one."""
    name = cls().name
    if not name:
        raise ValueError(f"data source {cls.__name__} has no name: it is a @dataclass with a default `name`")
    check_free("data source", name, _REGISTRY.get(name), cls)
    _REGISTRY[name] = cls
    return cls


def sources() -> dict[str, type[DataConfig]]:
    """All registered sources by name; every module of `data/sources/` is found by itself."""
    import_all("spectra_exp.data.sources")
    return dict(sorted(_REGISTRY.items()))
