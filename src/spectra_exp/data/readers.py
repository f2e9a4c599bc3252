"""Readers of files: each row with its place, for a message; a plain text has one row for each document."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from spectra_exp.data.rows import Row, listed, names_of
from spectra_exp.foundations.errors import ConfigError


class Fields(Protocol):
    """Where a row has what is read of it: names, or dotted paths."""

    text_field: str
    domain_field: str | None


# Gives each row and where it stands.
Reader = Callable[[Path, str, Fields], Iterator[tuple[str, Row]]]

# Nothing below this depth has a name that anybody would ask for.
DEEPEST = 50

_MARK = "<|endoftext|>"
_MARK_LINE = re.compile(r"^<\|endoftext\|>[ \t]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_INK = re.compile(r"\S")
_JSON_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_PLAIN = json.JSONDecoder()
# Python's own integers have a limit of digits.
_LONG_NUMBERS = json.JSONDecoder(parse_int=Decimal)


def read_jsonl(path: Path, key: str, config: Fields) -> Iterator[tuple[str, Row]]:
    """The rows of a JSONL file; blank lines are passed over."""
    for number, raw in enumerate(_bytes(path, key).split(b"\n"), start=1):
        if not raw.strip():
            continue
        where = f"line {number} of {path}"
        try:
            values = json_values(_decode(raw, where, key))
        except json.JSONDecodeError as error:
            raise ConfigError(key, f"{where} is not JSON ({error.msg}, column {error.colno})") from None
        if len(values) > 1:
            raise ConfigError(key, f"{where} holds {len(values)} JSON values", "write each on a line of its own")
        # None in a line of a byte order mark or of other than ASCII's spaces.
        for value in values:
            yield where, _object(value, where, key, config)


def read_json(path: Path, key: str, config: Fields) -> Iterator[tuple[str, Row]]:
    """The objects of a JSON file, however it is broken into lines: a list of them, or one after the other."""
    try:
        values = json_values(_decode(_bytes(path, key), str(path), key))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} of {path}"
        raise ConfigError(key, f"{where} is not JSON ({error.msg}, column {error.colno})") from None
    rows = [row for value in values for row in (value if isinstance(value, list) else [value])]
    for number, row in enumerate(rows, start=1):
        where = f"entry {number} of {path}"
        yield where, _object(row, where, key, config)


def read_csv(path: Path, key: str, config: Fields) -> Iterator[tuple[str, Row]]:
    """The rows of a CSV file whose first line has the names; parted by what that line has most of: , ; or tab."""
    text = _decode(_bytes(path, key), str(path), key)
    separator = max(",;\t", key=text.partition("\n")[0].count)
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = list(reader.fieldnames or ())
        for field in (config.text_field, config.domain_field):
            if field is not None and names.count(field) > 1:
                raise ConfigError(key, f"{names.count(field)} columns of {path} are named '{field}'", "rename one")
        for row in reader:
            where = f"the row that ends in line {reader.line_num} of {path}"
            if None in row:
                raise ConfigError(key, f"{where} has more fields than the first line", "quote texts with commas")
            yield where, row
    except csv.Error as error:
        raise ConfigError(key, f"line {reader.line_num} of {path} is not CSV ({error})", "write it again") from None


def read_parquet(path: Path, key: str, config: Fields) -> Iterator[tuple[str, Row]]:
    """The rows of a Parquet file, of which only the columns of the text and the domain are read."""
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_schema(path).names
        wanted = {
            column
            for field in (config.text_field, config.domain_field or config.text_field)
            for column in columns
            if column == field or (field not in columns and field.startswith(f"{column}."))
        }
        # A folder named "column=value" above is a sub-folder like others.
        table = pyarrow.parquet.read_table(path, columns=sorted(wanted), partitioning=None)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigError(key, f"{path} cannot be read as Parquet ({error})", "write it again") from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number} of {path}", row


def read_text(path: Path, key: str, config: Fields) -> Iterator[tuple[str, Row]]:
    """The documents of a text file: parted by lines `<|endoftext|>` where there are any, else by blank lines."""
    text = _text(path, key)
    for part in _MARK_LINE.split(text) if _MARK in text else _BLANK_LINES.split(text):
        yield str(path), {config.text_field: part.strip("\n")}


def read_document(path: Path, key: str, config: Fields) -> Iterator[tuple[str, Row]]:
    """The one document that a text file among others is, or those that lines `<|endoftext|>` part."""
    for part in _MARK_LINE.split(_text(path, key)):
        yield str(path), {config.text_field: part.strip("\n")}


READERS: dict[str, Reader] = {
    ".csv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
    ".tsv": read_csv,
    ".txt": read_text,
}


def _open_zstandard(path: Path, mode: str) -> Any:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="zstd")


COMPRESSED: dict[str, Callable[[Path, str], Any]] = {
    ".bz2": bz2.open,
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": _open_zstandard,
}
KINDS = ", ".join(READERS) + "; all but .parquet also as " + ", ".join(COMPRESSED)


def kind_of(path: Path) -> str | None:
    """The key of READERS for a file by its name (`.jsonl` for `A.JSONL.gz`), or None."""
    name = Path(path.name.lower())
    packed = name.suffix in COMPRESSED
    kind = Path(name.stem).suffix if packed else name.suffix
    return kind if kind in READERS and not (packed and kind == ".parquet") else None


def reader_of(path: Path) -> Reader:
    """The reader of a file of one of KINDS, by its name."""
    return READERS[kind_of(path) or path.suffix]


def names_in(path: Path, key: str, config: Fields) -> list[str]:
    """The names and dotted paths that the first row has a value under; of a table, its columns."""
    if kind_of(path) == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_schema(path).empty_table().flatten().column_names
    return names_of(next((row for _, row in reader_of(path)(path, key, config)), {}))


def json_values(text: str) -> list[Any]:
    """The JSON values of a text, one after the other. Raises JSONDecodeError.

    Whole numbers have any number of digits, and null stands for what is nested deeper than DEEPEST.
    """
    try:
        return _values(text, _PLAIN)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError):
        return _values(_shallow(text), _LONG_NUMBERS)


def _values(text: str, decoder: json.JSONDecoder) -> list[Any]:
    values, place = [], 0
    while begin := _INK.search(text, place):
        value, place = decoder.raw_decode(text, begin.start())
        values.append(value)
    return values


def _shallow(text: str) -> str:
    """The JSON text with null in place of each value at depth DEEPEST."""
    kept, depth, begin = [], 0, 0
    for token in _JSON_STRING_OR_BRACKET.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth == DEEPEST:
                kept += [text[begin : token.start()], "null"]
        elif token[0] in ("]", "}"):
            if depth == DEEPEST:
                begin = token.end()
            depth -= 1
    return "".join(kept) + (text[begin:] if depth < DEEPEST else "")


def _text(path: Path, key: str) -> str:
    return _decode(_bytes(path, key), str(path), key).replace("\r\n", "\n")


def _bytes(path: Path, key: str) -> bytes:
    """What is in the file, unpacked."""
    opener = COMPRESSED.get(path.suffix.lower(), open)
    try:
        with opener(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(key, f"{path} cannot be read ({error.strerror or error})") from None
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise ConfigError(key, f"{path} cannot be unpacked ({error})", "pack it again") from None


def _decode(raw: bytes, where: str, key: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(key, f"{where} is not UTF-8 (byte {error.start})", "save the file as UTF-8") from None


def _object(value: Any, where: str, key: str, config: Fields) -> Row:
    if not isinstance(value, dict):
        raise ConfigError(key, f"{where} is not a JSON object", f'write {{"{config.text_field}": ...}}')
    return value


def missing_field(where: str, key: str, field: str, names: list[str]) -> ConfigError:
    """The error for a row, or a file, that has nothing under the name of the text."""
    return ConfigError(key, f"{where} has no field '{field}'", "set data.text_field; " + listed(names, field))
