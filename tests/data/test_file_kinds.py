"""Every kind of file that is read, as people have them, and what is said of one that cannot be."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from spectra_exp.data.corpus import data_fingerprint, load_corpus
from spectra_exp.data.readers import DEEPEST, json_values
from spectra_exp.data.sources import read_documents
from spectra_exp.data.sources.files import FilesData
from spectra_exp.foundations.errors import ConfigError

ROWS = [{"text": f"one, two\nand {i}", "domain": "ab"[i % 2]} for i in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "text,domain\r\n" + "".join(f'"{row["text"]}",{row["domain"]}\r\n' for row in ROWS)


def zstandard(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.ndjson", LINES.encode()),
        ("T.JSONL", LINES.encode()),
        ("t.jsonl", ("\ufeff" + LINES.replace("\n", "\r\n\r\n")).encode()),
        ("t.json", json.dumps(ROWS, indent=2).encode()),
        ("t.json", LINES.encode()),
        ("t.json", "".join(json.dumps(row, indent=1) for row in ROWS).encode()),
        ("t.csv", CSV.encode()),
        ("t.csv", ("\ufeff" + CSV.replace('",', '";').replace("text,", "text;")).encode()),
        ("t.tsv", CSV.replace('",', '"\t').replace("text,", "text\t").encode()),
        ("t.jsonl.gz", gzip.compress(LINES[:60].encode()) + gzip.compress(LINES[60:].encode())),
        ("t.json.GZ", gzip.compress(json.dumps(ROWS).encode())),
        ("t.csv.bz2", bz2.compress(CSV.encode())),
        ("t.jsonl.xz", lzma.compress(LINES.encode())),
        ("t.jsonl.zst", zstandard(LINES.encode())),
    ],
)
def test_the_same_rows_come_out_of_every_kind(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    splits = read_documents(FilesData(train=str(tmp_path / name)))
    found = sorted((d.text, d.domain) for d in splits.train + splits.validation)
    assert found == sorted((row["text"], row["domain"]) for row in ROWS)


def test_a_name_in_capitals_is_the_same_data(tmp_path):
    for name in ("t.jsonl", "U.JSONL"):
        (tmp_path / name).write_text(LINES)
    first, second = (data_fingerprint(FilesData(train=str(tmp_path / n))) for n in ("t.jsonl", "U.JSONL"))
    assert first == second


def test_long_texts_in_a_table_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text\n" + "".join(f"{i}{'x' * 200_000}\n" for i in range(2)))
    assert [len(d.text) for d in read_documents(FilesData(train=str(path))).train] == [200_001]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.json", b'[{"text": "a"},\n{"text": }]', "line 2 of"),
        ("t.json", b'["a"]', "entry 1 of"),
        ("t.json", '[{"text": "é"}]'.encode("latin-1"), "is not UTF-8"),
        ("t.jsonl", b'{"text": "a"}{"text": "b"}\n', "holds 2 JSON values"),
        ("t.csv", b"text,domain\na, b,c\n", "has more fields than the first line"),
        ("t.csv", b'text,domain\n"a,b\n', "is not CSV"),
        ("t.csv", b"body,domain\na,b\n", "there are: body, domain"),
        ("t.csv", b"text,domain\n", "is empty"),
        ("t.csv", b"text,domain,text\na,b,c\n", "2 columns of"),
        ("t.jsonl.gz", gzip.compress(LINES.encode())[:-20], "cannot be unpacked"),
        ("t.jsonl.gz", b"plain", "cannot be read"),
        ("t.jsonl.zst", zstandard(LINES.encode())[:-9], "cannot be read"),
        ("t.parquet.gz", b"", "files of kind '.parquet.gz' are not read"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_documents(FilesData(train=str(tmp_path / name)))
    assert caught.value.key == "data.train" and words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["7" * 9131, "[" * 2000 + "]" * 2000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_fields_that_are_not_asked_for_are_of_no_interest(tmp_path, other):
    lines = LINES.splitlines()
    lines[5] = f'{{"text": "the [sixth", "n": {other}, "domain": "a"}}'
    for name, content in (("t.jsonl", "\n".join(lines)), ("t.json", "[" + ",".join(lines) + "]")):
        (tmp_path / name).write_text(content)
        splits = read_documents(FilesData(train=str(tmp_path / name)))
        (sixth,) = (d for d in splits.train + splits.validation if d.text == "the [sixth")
        assert sixth.domain == "a" and len(splits.train + splits.validation) == 20


def test_unclosed_depths_are_refused_with_their_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(LINES + '{"text": "x", "n": ' + "[" * 5000 + "\n")
    with pytest.raises(ConfigError, match="line 21 of .* is not JSON"):
        read_documents(FilesData(train=str(path)))


def test_what_lies_less_deep_is_kept():
    inner = "[" * (DEEPEST - 2) + "5" + "]" * (DEEPEST - 2)
    (value,) = json_values(f'{{"a": {inner}, "long": {"9" * 5000}}}')
    while isinstance(value, (dict, list)):
        value = value["a"] if isinstance(value, dict) else value[0]
    assert value == 5


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_nulls_are_passed_over_counted_and_said(tmp_path, kind):
    rows = [row | ({"text": None} if i == 7 else {}) for i, row in enumerate(ROWS)]
    path = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    config = FilesData(train=str(path), sequence_length=8, evaluation_tokens=16, probe_tokens=8, vocabulary_size=300)
    splits = read_documents(config)
    assert len(splits.train + splits.validation) == 19
    # Said by a corpus from the cache as by a new one.
    for _ in range(2):
        (note,) = load_corpus(config, tmp_path / "cache").notes
        assert note == f"1 of 20 rows of {path} are passed over: their 'text' is null"


def columns(path: Path, domain: pyarrow.Array) -> FilesData:
    table = pyarrow.table({"text": pyarrow.array([r["text"] for r in ROWS], pyarrow.large_string()), "domain": domain})
    pyarrow.parquet.write_table(table, path)
    return FilesData(train=str(path))


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([None, 0, 1, 2], pyarrow.int64(), {"unlabelled", "0", "1", "2"}),
        ([None, 0, 1, 2], pyarrow.float64(), {"unlabelled", "0", "1", "2"}),
        ([float("nan"), 0.5, 1, 1], pyarrow.float64(), {"unlabelled", "0.5", "1"}),
        ([None, True, False, True], pyarrow.bool_(), {"unlabelled", "True", "False"}),
    ],
)
def test_numbers_and_nulls_are_domains(tmp_path, values, kind, expected):
    splits = read_documents(columns(tmp_path / "t.parquet", pyarrow.array(values * 5, kind)))
    assert {d.domain for d in splits.train} == expected
