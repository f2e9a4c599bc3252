"""Readers of JSONL, Parquet and plain text: each row a text and, where it has one, a domain."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spectra_exp.data.schema import FilesData
from spectra_exp.foundations.errors import ConfigError, nearest

Row = tuple[str, str | None]
Reader = Callable[[Path, str, FilesData], Iterator[Row]]

_MARK = "<|endoftext|>"
_MARK_LINE = re.compile(r"^<\|endoftext\|>[ \t]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


def read_jsonl(path: Path, key: str, config: FilesData) -> Iterator[Row]:
    """The rows of a JSONL file; blank lines are passed over."""
    for number, raw in enumerate(_bytes(path, key).split(b"\n"), start=1):
        if not raw.strip():
            continue
        where = f"line {number} of {path}"
        line = _decode(raw, where, key)
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(key, f"{where} is not JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(row, dict):
            raise ConfigError(key, f"{where} is not a JSON object", f'write {{"{config.text_field}": ...}}')
        if config.text_field not in row:
            raise _missing_field(where, key, config.text_field, list(row))
        yield _row(row[config.text_field], row.get(config.domain_field), where, key, config)


def read_parquet(path: Path, key: str, config: FilesData) -> Iterator[Row]:
    """The rows of a Parquet file, of which only the text and the domain column are read."""
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_schema(path).names
        if config.text_field not in columns:
            raise _missing_field(str(path), key, config.text_field, columns)
        wanted = [name for name in (config.text_field, config.domain_field) if name in columns]
        table = pyarrow.parquet.read_table(path, columns=wanted)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(key, f"{path} cannot be read as Parquet ({error})", "write it again") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        where = f"row {number} of {path}"
        yield _row(row[config.text_field], row.get(config.domain_field), where, key, config)


def read_text(path: Path, key: str, config: FilesData) -> Iterator[Row]:
    """The documents of a text file: parted by lines `<|endoftext|>` where there are any, else by blank lines."""
    text = _decode(_bytes(path, key), str(path), key).replace("\r\n", "\n")
    parts = _MARK_LINE.split(text) if _MARK in text else _BLANK_LINES.split(text)
    for part in parts:
        yield part.strip("\n"), None


READERS: dict[str, Reader] = {".jsonl": read_jsonl, ".parquet": read_parquet, ".txt": read_text}


def _bytes(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(key, f"{path} cannot be read ({error.strerror})") from None


def _decode(raw: bytes, where: str, key: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            key, f"{where} is not UTF-8 (byte {error.start})", "save the file as UTF-8"
        ) from None


def _row(text: Any, domain: Any, where: str, key: str, config: FilesData) -> Row:
    if not isinstance(text, str):
        raise ConfigError(key, f"'{config.text_field}' in {where} is not a text but {type(text).__name__}")
    try:
        # JSON can spell half of a surrogate pair, which is no character and has no UTF-8 form.
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(key, f"the text in {where} is not UTF-8 (a lone surrogate)") from None
    return text, None if domain is None else str(domain)


def _missing_field(where: str, key: str, field: str, present: list[str]) -> ConfigError:
    close = nearest(field, present)
    hint = f"did you mean '{close}'? " if close else ""
    return ConfigError(
        key,
        f"{where} has no field '{field}'",
        f"{hint}set data.text_field to one of: " + ", ".join(map(str, present)),
    )
