"""The files source: documents from local files, one or many, of the kinds that `readers` reads."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from spectra_exp.data.documents import UNLABELLED, Document, Splits, digest, split_by_document
from spectra_exp.data.file_sets import FileSet, Member, find_set, validation_beside
from spectra_exp.data.readers import KINDS, kind_of, missing_field, names_in, read_document, reader_of
from spectra_exp.data.rows import MISSING, DomainCount, Row, domain_of, find, names_of, refuse_a_domain_each
from spectra_exp.data.schema import SplitDataConfig, register_source
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import option

log = logging.getLogger(__name__)

_NAMED_AT_MOST = 3


@register_source
@dataclass
class FilesData(SplitDataConfig):
    """Documents read from local files."""

    documents_key = "data.train"

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

    def check(self) -> None:
        """Raise ConfigError when a named file is missing or of a kind that is not read."""
        _locate(self)

    def content_digest(self) -> str:
        """The hash of the files' bytes and of the options that say what is read from them; paths do not enter."""
        train, validation = _locate(self)
        parts: list[object] = ["files", *_identity(train, self)]
        if validation is None:
            parts += ["split", self.validation_fraction, self.split_seed]
        else:
            parts += ["validation", *_identity(validation, self)]
        return digest(*parts)

    def read_splits(self) -> Splits:
        """The documents of both sets of files, or those of the one set split by document."""
        train_files, validation_files = _locate(self)
        train = _Reading(train_files, "data.train", self)
        train.refuse_wrong_domains()
        if validation_files is None:
            splits = split_by_document(train.documents, self.validation_fraction, self.split_seed)
            return replace(splits, notes=train.notes())
        validation = _Reading(validation_files, "data.validation", self)
        return Splits(train.documents, validation.documents, [*train.notes(), *validation.notes()])


def documents_of(name: str, key: str) -> list[Document]:
    """The documents of files, under the usual field names. Raises ConfigError, which names `key` and no other."""
    usual = FilesData()
    try:
        reading = _Reading(find_set(name, key, "documents"), key, usual)
    except ConfigError as error:
        if "data." not in error.key + error.fix:
            raise
        # Only the files source has keys for other field names.
        if kind_of(Path(name)) == ".txt":
            raise ConfigError(key, error.problem, "name a file that holds text") from None
        fix = f"the text must lie under '{usual.text_field}', a domain under '{usual.domain_field}'"
        raise ConfigError(key, error.problem, fix) from None
    for note in reading.notes():
        log.warning("%s", note)
    return reading.documents


def _locate(config: FilesData) -> tuple[FileSet, FileSet | None]:
    if not config.train:
        raise ConfigError(
            "data.train",
            "data=files needs files and none is named",
            f"set data.train=PATH, a file, folder or pattern ({KINDS})",
        )
    train = find_set(config.train, "data.train", "train")
    if config.validation:
        validation: FileSet | None = find_set(config.validation, "data.validation", "validation")
    else:
        validation = validation_beside(config.train)
    if validation is None:
        return train, None
    return _beside(train, validation), _beside(validation, train)


def _beside(files: FileSet, others: FileSet) -> FileSet:
    """The files, of which those that are read for the other split are not left out."""
    read = {member.path.resolve() for member in others.members}
    return replace(files, left_out=tuple(path for path in files.left_out if path.resolve() not in read))


def _identity(files: FileSet, config: FilesData) -> list[object]:
    parts: list[object] = []
    for path, folder in ((member.path, member.folder) for member in files.members):
        status, kind = path.stat(), kind_of(path)
        parts += [kind, *([] if kind == ".txt" else [config.text_field, config.domain_field or ""])]
        parts += [_sha256(path, status.st_size, status.st_mtime_ns)]
        # The domain of what names none.
        parts += [folder] if folder and config.domain_field else []
    return parts


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Reading:
    """The documents of a set of files, and what was passed over."""

    def __init__(self, files: FileSet, key: str, config: FilesData):
        self.files, self.key, self.config = files, key, config
        self.documents: list[Document] = []
        self._rows, self._nulls = 0, 0
        self._domains = DomainCount(config.domain_field, FilesData().domain_field)
        for member in files.members:
            reader = reader_of(member.path)
            if kind_of(member.path) == ".txt" and len(files.members) > 1:
                reader = read_document
            for where, row in reader(member.path, key, config):
                self._take(member, where, row)
        if not self._rows:
            raise ConfigError(key, f"{files.name} is empty", "name a file with documents")
        if not self.documents:
            raise ConfigError(
                key, f"none of the {self._rows} documents in {files.name} has any text", "check data.text_field"
            )

    def _take(self, member: Member, where: str, row: Row) -> None:
        self._rows += 1
        text = self._text(member, where, row)
        if text is None:
            self._nulls += 1
        elif text.strip():
            field = self.config.domain_field
            domain = (domain_of(row, field, where) or member.folder) if field else None
            self._domains.add(domain or None)
            self.documents.append(Document(text, domain or UNLABELLED, f"{self.key}:{self._rows}"))

    def _text(self, member: Member, where: str, row: Row) -> str | None:
        field = self.config.text_field
        text = find(row, field)
        if text is MISSING:
            table = kind_of(member.path) == ".parquet"
            names = names_in(member.path, self.key, self.config) if table else names_of(row)
            raise missing_field(where, self.key, field, names)
        if text is not None and not isinstance(text, str):
            raise ConfigError(self.key, f"'{field}' in {where} is not a text but {type(text).__name__}")
        try:
            # JSON can spell half of a surrogate pair, which is no character and has no UTF-8 form.
            (text or "").encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError(self.key, f"the text in {where} is not UTF-8 (a lone surrogate)") from None
        return text

    def names(self) -> list[str]:
        """The names under which the rows of a file have values; none where all are plain texts."""
        with_fields = next((m.path for m in self.files.members if kind_of(m.path) != ".txt"), None)
        return names_in(with_fields, self.key, self.config) if with_fields else []

    def refuse_wrong_domains(self) -> None:
        """Raise ConfigError for a chosen field that no row has, and for a domain for nearly every document."""
        if names := self.names():
            self._domains.refuse(self.files.name, lambda: names)
        refuse_a_domain_each(self.documents, lambda: names)

    def notes(self) -> list[str]:
        """What a reader of the figures should know of the files, a line each."""
        notes = self._domains.notes(self.files.name, self.names)
        if self._nulls:
            notes.append(
                f"{self._nulls} of {self._rows} rows of {self.files.name} are passed over: their "
                f"'{self.config.text_field}' is null"
            )
        if left := self.files.left_out:
            kinds = Counter(path.suffix or path.name for path in left).most_common()
            some = ", ".join(f"{count} {kind}" for kind, count in kinds[:_NAMED_AT_MOST])
            more = ", ..." if len(kinds) > _NAMED_AT_MOST else ""
            notes.append(f"not all files of {self.files.name} are read, left out are: {some}{more}")
        return notes
