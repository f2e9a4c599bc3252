"""The hub sources: data sets of the Hugging Face Hub, streamed from a local copy or, if asked for, over the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spectra_exp.data.chat import renderer
from spectra_exp.data.documents import UNLABELLED, Document, Splits, digest, split_by_document
from spectra_exp.data.schema import HubData
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.hub_errors import hub_errors

# Raise when the documents made of the same rows change: it is part of the fingerprint.
READER_VERSION = 1
# Files of a split that are read in turn, row by row.
FILES_AT_ONCE = 10
# What the documents depend on, and nothing of how they are tokenised.
_READ_BY = (
    "dataset", "path", "online", "revision", "subsets", "train_split", "validation_split", "max_samples", "text_field",
    "messages_field", "domain_field", "validation_fraction", "split_seed", "tokenizer",
)  # fmt: skip

_last_read: tuple[dict[str, Any], Splits] | None = None


def check(config: HubData) -> None:
    """Raise ConfigError, with the command that fetches it, when the data set is neither here nor asked for."""
    if config.path is not None and not Path(config.path).expanduser().is_dir():
        raise ConfigError("data.path", f"there is no folder {config.path}", _how_to_get(config))
    if config.path is None and not config.online:
        raise ConfigError("data.path", f"no copy of {config.dataset} is named", _how_to_get(config))
    if config.loss_on == "assistant" and not config.messages_field:
        raise ConfigError("data.loss_on", "'assistant' needs conversations, and these are texts", "give all")


def _how_to_get(config: HubData) -> str:
    fetch = f"hf download {config.dataset} --repo-type dataset --local-dir FOLDER"
    return f"`{fetch}` where there is a network, then data.path=FOLDER; or data.online=true to stream it"


def content_digest(config: HubData) -> str:
    """The hash of the documents of a local copy, wherever it lies; online, of the data set's commit and the options."""
    parts: list[object] = ["hub", READER_VERSION, config.loss_on]
    if config.path is None:
        options = {key: getattr(config, key) for key in _READ_BY if key not in ("online", "revision", "tokenizer")}
        return digest(*parts, _commit(config), sorted(options.items()))
    splits = read_splits(config)
    documents = [*splits.train, *splits.validation]
    return digest(*parts, len(splits.train), *((d.text, d.domain, d.spans) for d in documents))


def read_splits(config: HubData) -> Splits:
    """The documents: the data set's own validation split where one is named, else split by document."""
    global _last_read
    key = {name: asdict(config)[name] for name in _READ_BY}
    # The hash of a local copy reads all of them already.
    if _last_read is None or _last_read[0] != key:
        _last_read = (key, _read(config))
    return _last_read[1]


def _read(config: HubData) -> Splits:
    train = _documents(config, config.train_split, config.max_samples)
    if config.validation_split is None:
        return split_by_document(train, config.validation_fraction, config.split_seed)
    most = config.max_samples and max(1, round(config.max_samples * config.validation_fraction))
    return Splits(train, _documents(config, config.validation_split, most))


def _documents(config: HubData, split: str, most: int | None) -> list[Document]:
    """The first `most` rows of the stream as documents, shared equally by the subsets."""
    render = renderer(config.tokenizer)
    share = most and max(1, most // len(config.subsets))
    found = []
    for subset in config.subsets:
        for number, row in enumerate(islice(_rows(config, subset, split), share)):
            where = f"row {number} of {subset}/{split}"
            domain = row.get(config.domain_field) if config.domain_field else subset
            name = f"{subset}/{split}:{number}"
            if config.messages_field:
                text, spans = render(_messages(row, config, where))
            else:
                text, spans = _text(row, config, where), None
            if text.strip():
                found.append(Document(text, str(domain or UNLABELLED), name, spans))
    return found


def _rows(config: HubData, subset: str, split: str) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    local = config.path is not None
    place = str(Path(config.path).expanduser()) if local else config.dataset
    try:
        # Data alone: a data set that would run code of its own is not supported by the library any more.
        stream = load_dataset(
            place, subset, split=split, streaming=True, revision=None if local else _commit(config)
        )
    except (DatasetNotFoundError, FileNotFoundError, *hub_errors()) as error:
        raise ConfigError("data.path" if local else "data.online", _line(error), _how_to_get(config)) from error
    except ValueError as error:
        # Its text lists the subsets or splits that there are.
        raise ConfigError("data.subsets", f"{place}: {_line(error)}", "give one that it has") from error
    return _in_turn(stream, np.random.default_rng(config.split_seed).permutation(stream.num_shards).tolist())


def _in_turn(stream: Any, files: list[int]) -> Iterator[dict[str, Any]]:
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
    if config.revision:
        return config.revision
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(config.dataset).sha)
    except (OSError, *hub_errors()) as error:
        raise ConfigError("data.online", f"the hub is not reached ({_line(error)})", _how_to_get(config)) from error


def _text(row: dict[str, Any], config: HubData, where: str) -> str:
    text = row.get(config.text_field)
    if not isinstance(text, str):
        raise ConfigError(
            "data.text_field", f"{where} has no text '{config.text_field}'", f"it has: {', '.join(sorted(row))}"
        )
    return text


def _messages(row: dict[str, Any], config: HubData, where: str) -> list[dict[str, str]]:
    messages = row.get(config.messages_field)
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    ):
        raise ConfigError(
            "data.messages_field",
            f"{where} has no list '{config.messages_field}' of messages with role and content",
            f"it has: {', '.join(sorted(row))}",
        )
    return messages
