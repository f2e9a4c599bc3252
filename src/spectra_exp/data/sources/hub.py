"""The hub sources: data sets of the Hugging Face Hub, streamed from a local copy or, if asked for, over the network."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spectra_exp.data.chat import ASSISTANT, BrokenTemplate, Spans, Unwritable, chatml, renderer
from spectra_exp.data.documents import UNLABELLED, Document, Splits, digest, split_by_document
from spectra_exp.data.rows import DomainCount, Row, domain_of, find, names_of, refuse_a_domain_each
from spectra_exp.data.schema import DataConfig, SplitDataConfig, register_source
from spectra_exp.foundations.bounds import LARGEST_COUNT
from spectra_exp.foundations.errors import ConfigError, hub_errors
from spectra_exp.foundations.options import option

# Raise when the documents made of the same rows change: it is part of the fingerprint.
READER_VERSION = 1
# Files of a split that are read in turn, row by row.
FILES_AT_ONCE = 10
# Of what the documents depend on, what the hash of what is read over the network has elsewhere or never had.
_NOT_HASHED = ("online", "revision", "tokenizer", "loss_on")

_last_read: tuple[dict[str, Any], Splits] | None = None


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
        20_000,
        "rows to read; of a validation split data.validation_fraction as many; null: all",
        unit="rows",
        minimum=2,
        maximum=LARGEST_COUNT,
    )
    text_field: str = option("text", "column with the text")
    messages_field: str | None = option(None, "column with the messages of a conversation; null: text_field is read")
    domain_field: str | None = option(None, "column with the domain; null: the subset is the domain")
    loss_on: str = option("all", "tokens that the loss counts: all, or those of one role's turns, such as assistant")
    template_refusals: str = option(
        "stop",
        "a conversation that the chat template does not write: stop with what it says, or leave_out and count it",
        choices=("stop", "leave_out"),
        later=True,
    )

    def check(self) -> None:
        """Raise ConfigError, with the command that fetches it, when the data set is neither here nor asked for."""
        if self.path is not None and not os.path.isdir(os.path.expanduser(self.path)):
            raise ConfigError("data.path", f"there is no folder {self.path}", _how_to_get(self.dataset))
        if self.path is None and not self.online:
            raise ConfigError("data.path", f"no copy of {self.dataset} is named", _how_to_get(self.dataset))
        if self.path is None:
            _check_name(self.dataset)
        if not self.subsets:
            raise ConfigError("data.subsets", "none is named", "give one that the data set has, such as [default]")
        if self.loss_on != "all" and not self.messages_field:
            raise ConfigError("data.loss_on", f"'{self.loss_on}' needs conversations, and these are texts", "give all")

    def content_digest(self) -> str:
        """The hash of the documents of a local copy, wherever it lies; online, of the data set's commit and options."""
        parts: list[object] = ["hub", READER_VERSION, self.loss_on]
        if self.path is None:
            options = {key: value for key, value in self._read_by().items() if key not in _NOT_HASHED}
            if self.template_refusals == HubData().template_refusals:
                del options["template_refusals"]
            return digest(*parts, _commit(self), sorted(options.items()))
        splits = self.read_splits()
        documents = [*splits.train, *splits.validation]
        return digest(*parts, len(splits.train), *((d.text, d.domain, d.spans) for d in documents))

    def read_splits(self) -> Splits:
        """The documents: the data set's own validation split where one is named, else split by document."""
        global _last_read
        key = self._read_by()
        # The hash of a local copy reads all of them already.
        if _last_read is None or _last_read[0] != key:
            _last_read = (key, _read(self))
        return _last_read[1]

    def _read_by(self) -> dict[str, Any]:
        """What the documents depend on, by option: nothing of how they are tokenised but the chat template."""
        own = {f.name for f in fields(HubData)} - {f.name for f in fields(DataConfig)}
        return {name: value for name, value in asdict(self).items() if name in (*own, "tokenizer")}


@register_source
@dataclass
class SmoltalkData(HubData):
    """Conversations with an assistant."""

    name: str = option("smoltalk", "where the documents come from", choices=("smoltalk",))
    dataset: str = option("HuggingFaceTB/smoltalk", "the data set's name on the hub")
    subsets: list[str] = option(["all"], "subsets (configurations) to read, in equal shares")
    validation_split: str | None = option("test", "the split to score; null holds documents of the training split out")
    messages_field: str | None = option("messages", "column with the messages of a conversation")
    domain_field: str | None = option("source", "column with the domain; null: the subset is the domain")


@register_source
@dataclass
class CosmopediaData(HubData):
    """Textbooks, stories and articles written by a model."""

    name: str = option("cosmopedia", "where the documents come from", choices=("cosmopedia",))
    dataset: str = option("HuggingFaceTB/cosmopedia", "the data set's name on the hub")
    subsets: list[str] = option(
        ["auto_math_text", "khanacademy", "openstax", "stanford", "stories", "wikihow"],
        "subsets (configurations) to read, in equal shares",
    )


def _how_to_get(dataset: str) -> str:
    fetch = f"hf download {dataset} --repo-type dataset --local-dir FOLDER"
    return f"`{fetch}` where there is a network, then data.path=FOLDER; or data.online=true to stream it"


def _check_name(dataset: str) -> None:
    """Raise ConfigError for what the hub calls no data set."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(dataset)
    except HFValidationError as error:
        raise ConfigError("data.dataset", _line(error), "give NAMESPACE/NAME") from error


def _read(config: HubData) -> Splits:
    train = _Reading(config, config.train_split, config.max_samples)
    if config.validation_split is None:
        splits = split_by_document(train.documents, config.validation_fraction, config.split_seed)
        return replace(splits, notes=train.notes())
    most = config.max_samples and max(1, round(config.max_samples * config.validation_fraction))
    validation = _Reading(config, config.validation_split, most)
    return Splits(train.documents, validation.documents, [*train.notes(), *validation.notes()])


class _Reading:
    """The first `most` rows of a split as documents, shared equally by the subsets, and what was left out."""

    def __init__(self, config: HubData, split: str, most: int | None):
        self.config, self.split = config, split
        self.documents: list[Document] = []
        self._render = renderer(config.tokenizer)
        self._role = ASSISTANT if config.loss_on == "all" else config.loss_on
        self._rows, self._nulls = 0, 0
        self._roles: Counter[str] = Counter()
        self._refused: list[Unwritable] = []
        share = most and max(1, most // len(config.subsets))
        self._names: list[str] = []
        self._domains = DomainCount(config.domain_field, type(config)().domain_field)
        for subset in config.subsets:
            # Readers left open when the process ends take it down.
            with closing(_rows(config, subset, split)) as rows:
                for number, row in enumerate(islice(rows, share)):
                    self._names = self._names or names_of(row)
                    self._take(row, subset, number)
        if self._refused and not self.documents:
            raise self._refused[0]
        if config.loss_on != "all" and not any(document.spans for document in self.documents):
            raise ConfigError(
                "data.loss_on",
                f"no message of {split} is by '{config.loss_on}'",
                "name one of its roles: " + ", ".join(f"{role} ({count})" for role, count in self._roles.most_common()),
            )
        if split == config.train_split:
            self._domains.refuse(split, lambda: self._names)
        if config.domain_field:
            refuse_a_domain_each(self.documents, lambda: self._names)

    def _take(self, row: Row, subset: str, number: int) -> None:
        config, where = self.config, f"row {number} of {subset}/{self.split}"
        domain = domain_of(row, config.domain_field, where) if config.domain_field else subset
        self._rows += 1
        try:
            text, spans = self._written(row, where)
        except (BrokenTemplate, Unwritable) as error:
            problem = f"{where}: {error.problem}"
            if isinstance(error, BrokenTemplate):
                raise ConfigError(error.key, problem, error.fix) from None
            if config.template_refusals == "stop":
                fix = f"{error.fix}; or data.template_refusals=leave_out for the other rows alone"
                raise ConfigError(error.key, problem, fix) from None
            self._refused.append(Unwritable(error.key, problem, error.fix))
            return
        if text is None:
            self._nulls += 1
        elif text.strip():
            self._domains.add(domain or None)
            self.documents.append(Document(text, domain or UNLABELLED, f"{subset}/{self.split}:{number}", spans))

    def _written(self, row: Row, where: str) -> tuple[str | None, Spans | None]:
        """The text, None for a null, and of a conversation where the role's turns are."""
        config = self.config
        if not config.messages_field:
            return _text(row, config, where), None
        messages = _messages(row, config.messages_field, where)
        if messages is None:
            return None, None
        self._roles.update(message["role"] for message in messages)
        return self._render(messages, self._role)

    def notes(self) -> list[str]:
        """What a reader of the figures should know of the split, a line each."""
        config, rows = self.config, f"{self._rows} rows of {self.split}"
        notes = self._domains.notes(self.split, lambda: self._names)
        if self._nulls:
            field = config.messages_field or config.text_field
            notes.append(f"{self._nulls} of {rows} are passed over: their '{field}' is null")
        if self._refused:
            notes.append(f"{len(self._refused)} of {rows} are left out: {self._refused[0].problem}")
        if config.messages_field and config.tokenizer and self._render is chatml:
            notes.append(f"data.tokenizer={config.tokenizer} has no chat template: {self.split} is written as ChatML")
        return notes


def _rows(config: HubData, subset: str, split: str) -> Generator[dict[str, Any], None, None]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    local = config.path is not None
    place = config.dataset if config.path is None else str(Path(config.path).expanduser())
    try:
        # Data alone: no code of a data set is run.
        stream = load_dataset(
            place,
            subset,
            split=split,
            streaming=True,
            revision=None if local else _commit(config),
            trust_remote_code=False,
        )
    except (DatasetNotFoundError, FileNotFoundError, *hub_errors()) as error:
        raise ConfigError("data.path" if local else "data.online", _line(error), _how_to_get(config.dataset)) from error
    except ValueError as error:
        # Its text lists the subsets or splits that there are.
        raise ConfigError("data.subsets", f"{place}: {_line(error)}", "give one that it has") from error
    return _in_turn(stream, np.random.default_rng(config.split_seed).permutation(stream.num_shards).tolist())


def _in_turn(stream: Any, files: list[int]) -> Generator[dict[str, Any], None, None]:
    """The rows of the stream's files: the first of some files, their second ones, and so on.

    The library's own shuffling reads ahead in threads, whose end it sleeps for.
    """
    opened: deque[Iterator[dict[str, Any]]] = deque()
    waiting = deque(files)
    while opened or waiting:
        while waiting and len(opened) < FILES_AT_ONCE:
            opened.append(iter(stream.shard(num_shards=len(files), index=waiting.popleft())))
        rows = opened.popleft()
        row = next(rows, None)
        if row is not None:
            opened.append(rows)
            yield row


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _commit(config: HubData) -> str:
    """The commit that is read over the network: the one named, else the data set's newest."""
    return config.revision or _newest(config.dataset)


@cache
def _newest(dataset: str) -> str:
    """The newest commit when this process first asked: what is read must be what the run's id was made of."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(dataset).sha)
    except hub_errors() + (OSError,) as error:
        raise ConfigError("data.online", f"the hub is not reached ({_line(error)})", _how_to_get(dataset)) from error


def _text(row: Row, config: HubData, where: str) -> str | None:
    text = find(row, config.text_field)
    if text is not None and not isinstance(text, str):
        raise ConfigError(
            "data.text_field", f"{where} has no text '{config.text_field}'", f"it has: {', '.join(sorted(row))}"
        )
    return text


def _messages(row: Row, field: str, where: str) -> list[dict[str, str]] | None:
    messages = find(row, field)
    if messages is None:
        return None
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    ):
        raise ConfigError(
            "data.messages_field",
            f"{where} has no list '{field}' of messages with role and content",
            f"it has: {', '.join(sorted(row))}",
        )
    return messages
