"""The files source: documents from local JSONL, Parquet or text files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from spectra_exp.data.documents import UNLABELLED, Document, Splits, digest, split_by_document
from spectra_exp.data.readers import READERS
from spectra_exp.data.schema import FilesData
from spectra_exp.foundations.errors import ConfigError, nearest


def check(config: FilesData) -> None:
    """Raise ConfigError when a named file is missing or of a kind that is not read."""
    _locate(config)


def content_digest(config: FilesData) -> str:
    """The hash of the files' bytes and of the options that say what is read from them; paths do not enter."""
    train, validation = _locate(config)
    parts: list[object] = ["files", *_identity(train, config)]
    if validation is None:
        parts += ["split", config.validation_fraction, config.split_seed]
    else:
        parts += ["validation", *_identity(validation, config)]
    return digest(*parts)


def read_splits(config: FilesData) -> Splits:
    """The documents of the two files, or those of the one file split by document."""
    train_file, validation_file = _locate(config)
    train = _documents(train_file, "data.train", config)
    named = config.domain_field != FilesData().domain_field
    if named and train_file.suffix != ".txt" and all(d.domain == UNLABELLED for d in train):
        raise ConfigError(
            "data.domain_field",
            f"no document of {train_file} has a '{config.domain_field}'",
            "check its name or drop it",
        )
    if validation_file is None:
        return split_by_document(train, config.validation_fraction, config.split_seed)
    return Splits(train, _documents(validation_file, "data.validation", config))


def documents_of(name: str, key: str) -> list[Document]:
    """The documents of one file, under the usual field names. Raises ConfigError, which names `key` and no other."""
    usual = FilesData()
    try:
        return _documents(_file(_existing(name, key), key, "documents"), key, usual)
    except ConfigError as error:
        if "data." not in error.fix:
            raise
        # Only the files source has keys for other field names.
        if name.endswith(".txt"):
            raise ConfigError(key, error.problem, "name a file that holds text") from None
        fix = f"the text must lie under '{usual.text_field}', a domain under '{usual.domain_field}'"
        raise ConfigError(key, error.problem, fix) from None


def _locate(config: FilesData) -> tuple[Path, Path | None]:
    if not config.train:
        raise ConfigError(
            "data.train",
            "data=files needs a file and none is named",
            "set data.train=PATH (" + _kinds() + ")",
        )
    train = _existing(config.train, "data.train")
    validation = _existing(config.validation, "data.validation") if config.validation else None
    if validation is None and train.is_dir():
        validation = next(iter(_members(train, "validation")), None)
    return _file(train, "data.train", "train"), validation and _file(
        validation, "data.validation", "validation"
    )


def _existing(name: str, key: str) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        return path
    if not path.parent.is_dir():
        raise ConfigError(key, f"the folder {path.parent} does not exist", "check the path")
    close = nearest(path.name, sorted(p.name for p in path.parent.iterdir()))
    raise ConfigError(
        key, f"there is no file {path}", f"did you mean '{close}'?" if close else "check the path"
    )


def _file(path: Path, key: str, stem: str) -> Path:
    if path.is_dir():
        members = _members(path, stem)
        if len(members) != 1:
            found = "holds none" if not members else "holds " + " and ".join(p.name for p in members)
            raise ConfigError(key, f"a folder must hold one {stem} file ({_kinds()}); {path} {found}")
        return members[0]
    if not path.is_file():
        raise ConfigError(key, f"{path} is not a regular file", "name one")
    if path.suffix not in READERS:
        raise ConfigError(
            key, f"files of kind '{path.suffix or path.name}' are not read", "valid: " + _kinds()
        )
    return path


def _members(folder: Path, stem: str) -> list[Path]:
    return [path for suffix in sorted(READERS) if (path := folder / f"{stem}{suffix}").is_file()]


def _kinds() -> str:
    return ", ".join(sorted(READERS))


def _identity(path: Path, config: FilesData) -> list[object]:
    status = path.stat()
    fields = [] if path.suffix == ".txt" else [config.text_field, config.domain_field]
    return [path.suffix, *fields, _sha256(path, status.st_size, status.st_mtime_ns)]


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _documents(path: Path, key: str, config: FilesData) -> list[Document]:
    rows = list(READERS[path.suffix](path, key, config))
    if not rows:
        raise ConfigError(key, f"{path} is empty", "name a file with documents")
    documents = [
        Document(text, domain or UNLABELLED, f"{key}:{number}")
        for number, (text, domain) in enumerate(rows, start=1)
        if text.strip()
    ]
    if not documents:
        raise ConfigError(
            key, f"none of the {len(rows)} documents in {path} has any text", "check data.text_field"
        )
    return documents
