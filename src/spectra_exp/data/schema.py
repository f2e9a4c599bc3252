"""The `data` group: one dataclass per source, the options of each with their units and ranges."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_exp.foundations.bounds import (
    LARGEST_COUNT,
    LARGEST_LENGTH,
    LARGEST_SEED,
    MOST_WORDS,
    MOST_WORDS_OF_A_DOCUMENT,
)
from spectra_exp.foundations.options import option

# 256 bytes and the end-of-text token: the smallest vocabulary that can spell any text.
SMALLEST_VOCABULARY = 257

_WORDS = "words, punctuation marks and line breaks"


@dataclass
class DataConfig:
    """What every source has: how its documents become tokens and blocks."""

    name: str = option(
        "", "where the documents come from", choices=("embedded", "files", "stdlib", "smoltalk", "cosmopedia")
    )
    sequence_length: int = option(128, "length of a block", unit="tokens", minimum=2, maximum=LARGEST_LENGTH)
    tokenizer: str | None = option(
        None, "a local tokenizer.json or its folder, or source, that of model.source; null trains a byte-level BPE",
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
        4096, "tokens, the first of the scored ones, whose routing is written down", unit="tokens", minimum=2,
        maximum=LARGEST_COUNT,
    )


@dataclass
class SplitDataConfig(DataConfig):
    """A source that may come without a validation split of its own."""

    validation_fraction: float = option(
        0.1, "part of each domain's documents held out where no validation split exists", above=0, maximum=0.5
    )
    split_seed: int = option(
        0, "which documents are held out where no validation split exists", minimum=0, maximum=LARGEST_SEED
    )


@dataclass
class EmbeddedData(DataConfig):
    """Documents written by the package itself, the same on every machine."""

    name: str = option("embedded", "where the documents come from", choices=("embedded",))
    train_words: int = option(
        650_000, "size of the training split over all domains", unit=_WORDS, minimum=1, maximum=MOST_WORDS
    )
    validation_words: int = option(
        42_000, "size of the validation split over all domains", unit=_WORDS, minimum=1, maximum=MOST_WORDS
    )
    document_words: int = option(
        120, "mean length of a document; each is 0.5 to 1.5 times as long", unit=_WORDS, minimum=20,
        maximum=MOST_WORDS_OF_A_DOCUMENT,
    )
    generator_seed: int = option(
        0, "another seed writes other documents of the same kind", minimum=0, maximum=LARGEST_SEED
    )


@dataclass
class FilesData(SplitDataConfig):
    """Documents read from local files."""

    name: str = option("files", "where the documents come from", choices=("files",))
    train: str | None = option(
        None,
        "a .jsonl, .json, .csv, .parquet or .txt file, a folder of them (of its train.* and validation.* where it has "
        "those), or a pattern such as 'shards/*.parquet'",
        path=True,
    )
    validation: str | None = option(
        None, "the same for the validation split; null splits the training files by document", path=True
    )
    text_field: str = option("text", "field or column with the document's text, or a dotted path to it")
    domain_field: str | None = option(
        "domain",
        "field, column or dotted path (meta.set) with the document's domain; a document without one has its "
        "sub-folder's name. null: no domains",
    )


@dataclass
class StdlibData(SplitDataConfig):
    """The source code and the documentation of the running interpreter's own library."""

    name: str = option("stdlib", "where the documents come from", choices=("stdlib",))
    max_bytes: int = option(
        3_000_000, "how much of the library is read, in whole files", unit="bytes", minimum=1, maximum=LARGEST_COUNT
    )


@dataclass
class HubData(SplitDataConfig):
    """A data set of the Hugging Face Hub, from a local copy in its layout or over the network."""

    dataset: str = option("", "the data set's name on the hub")
    path: str | None = option(
        None, "folder with a copy of the data set, as `hf download --local-dir` makes it", path=True
    )
    online: bool = option(False, "stream it over the network where no copy is named")
    revision: str | None = option(None, "commit to read over the network; null: the newest")
    subsets: list[str] = option([], "subsets (configurations) to read, in equal shares")
    train_split: str = option("train", "the split to train on")
    validation_split: str | None = option(None, "the split to score; null holds documents of the training split out")
    max_samples: int | None = option(
        20_000, "rows to read; of a validation split data.validation_fraction as many; null: all",
        unit="rows", minimum=2, maximum=LARGEST_COUNT,
    )  # fmt: skip
    text_field: str = option("text", "column with the text")
    messages_field: str | None = option(None, "column with the messages of a conversation; null: text_field is read")
    domain_field: str | None = option(None, "column with the domain; null: the subset is the domain")
    loss_on: str = option(
        "all", "tokens that the loss counts: all, or those of one role's turns, such as assistant"
    )
    template_refusals: str = option(
        "stop",
        "a conversation that the chat template does not write: stop with what it says, or leave_out and count it",
        choices=("stop", "leave_out"),
        later=True,
    )


@dataclass
class SmoltalkData(HubData):
    """Conversations with an assistant."""

    name: str = option("smoltalk", "where the documents come from", choices=("smoltalk",))
    dataset: str = option("HuggingFaceTB/smoltalk", "the data set's name on the hub")
    subsets: list[str] = option(["all"], "subsets (configurations) to read, in equal shares")
    validation_split: str | None = option("test", "the split to score; null holds documents of the training split out")
    messages_field: str | None = option("messages", "column with the messages of a conversation")
    domain_field: str | None = option("source", "column with the domain; null: the subset is the domain")


@dataclass
class CosmopediaData(HubData):
    """Textbooks, stories and articles written by a model."""

    name: str = option("cosmopedia", "where the documents come from", choices=("cosmopedia",))
    dataset: str = option("HuggingFaceTB/cosmopedia", "the data set's name on the hub")
    subsets: list[str] = option(
        ["auto_math_text", "khanacademy", "openstax", "stanford", "stories", "wikihow"],
        "subsets (configurations) to read, in equal shares",
    )


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "embedded": EmbeddedData,
    "files": FilesData,
    "stdlib": StdlibData,
    "smoltalk": SmoltalkData,
    "cosmopedia": CosmopediaData,
}
