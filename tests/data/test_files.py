from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from spectra_exp.data.corpus import data_fingerprint, load_corpus
from spectra_exp.data.sources import check_data, read_documents
from spectra_exp.data.sources.files import FilesData
from spectra_exp.foundations.errors import ConfigError

ROWS = [{"text": f"document {i} says {i * i}", "domain": "ab"[i % 2]} for i in range(40)]


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_parquet(path: Path, rows: list[dict]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def refused(config: FilesData) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_data(config)
        read_documents(config)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_rows_become_documents_with_their_domains(tmp_path, write):
    suffix = write.__name__.removeprefix("write_")
    config = FilesData(
        train=write(tmp_path / f"t.{suffix}", ROWS[:30]),
        validation=write(tmp_path / f"v.{suffix}", ROWS[30:]),
    )
    splits = read_documents(config)
    assert [(d.text, d.domain) for d in splits.train] == [(r["text"], r["domain"]) for r in ROWS[:30]]
    assert [(d.text, d.domain) for d in splits.validation] == [(r["text"], r["domain"]) for r in ROWS[30:]]


def test_other_field_names_and_rows_without_domain(tmp_path):
    rows = [{"body": f"text {i}", "kind": None if i == 0 else "k"} for i in range(3)] + [{"body": "last"}]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    other = write_jsonl(tmp_path / "v.jsonl", [{"body": "x"}])
    splits = read_documents(FilesData(train=path, validation=other, text_field="body", domain_field="kind"))
    assert [d.domain for d in splits.train] == ["unlabelled", "k", "k", "unlabelled"]
    assert [note.split(" of ")[:2] for note in splits.notes] == [["2", "4 documents"], ["1", "1 documents"]]


@pytest.mark.parametrize("text", ["a b\n<|endoftext|>\nc\n\nd\n<|endoftext|>\ne f\n", "a b\n\nc\nd\n  \n\ne f"])
def test_text_files_are_parted_by_marks_or_blank_lines(tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_text(text)
    splits = read_documents(FilesData(train=str(path)))
    expected = {"a b", "c\n\nd", "e f"} if "<|" in text else {"a b", "c\nd", "e f"}
    assert {d.text for d in splits.train + splits.validation} == expected


def test_without_a_validation_file_documents_are_split(tmp_path):
    splits = read_documents(FilesData(train=write_jsonl(tmp_path / "t.jsonl", ROWS), validation_fraction=0.25))
    assert len(splits.validation) == 10 and len(splits.train) == 30


def test_a_folder_gives_both_files_and_validation_wins_over_it(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS[:20])
    write_jsonl(tmp_path / "validation.jsonl", ROWS[20:30])
    other = write_jsonl(tmp_path / "other.jsonl", ROWS[30:])
    assert len(read_documents(FilesData(train=str(tmp_path))).validation) == 10
    splits = read_documents(FilesData(train=str(tmp_path), validation=other))
    assert splits.validation[0].text == ROWS[30]["text"]
    write_parquet(tmp_path / "train.parquet", ROWS)
    assert "train.jsonl and train.parquet" in str(refused(FilesData(train=str(tmp_path))))


def test_validation_documents_that_are_in_training_are_dropped(tmp_path):
    train = write_jsonl(tmp_path / "t.jsonl", ROWS[:30])
    assert (
        len(read_documents(FilesData(train=train, validation=write_jsonl(tmp_path / "v.jsonl", ROWS[25:]))).validation)
        == 10
    )
    assert "no document is left for validation" in str(refused(FilesData(train=train, validation=train)))


def test_fingerprint_follows_content_and_not_the_path(tmp_path):
    path = write_jsonl(tmp_path / "t.jsonl", ROWS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = shutil.copy(path, elsewhere / "named otherwise.jsonl")
    first = data_fingerprint(FilesData(train=path))
    assert first == data_fingerprint(FilesData(train=str(copy)))
    assert first != data_fingerprint(FilesData(train=path, validation=str(copy)))
    assert first != data_fingerprint(FilesData(train=path, text_field="domain"))
    assert first != data_fingerprint(FilesData(train=path, split_seed=1))
    assert first != data_fingerprint(FilesData(train=path, validation_fraction=0.2))
    # With a validation file nothing is split: the split's options change nothing.
    with_file = data_fingerprint(FilesData(train=path, validation=str(copy)))
    assert with_file == data_fingerprint(FilesData(train=path, validation=str(copy), split_seed=1))
    write_jsonl(tmp_path / "t.jsonl", [*ROWS, {"text": "one more"}])
    assert first != data_fingerprint(FilesData(train=path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "a"}\n{"text": \n', "line 2 of"),
        (b'{"text": "a"}\n\n["text"]\n', "line 3 of"),
        (b'{"text": "a"}\n{"txt": "b"}\n', "did you mean 'txt'?"),
        (b'{"text": 3}\n', "is not a text but int"),
        (b'{"text": "\xff"}\n', "line 1 of"),
        (b'{"text": "\\ud800"}\n', "lone surrogate"),
        (b"\n\n", "is empty"),
        (b'{"text": " "}\n', "none of the 1 documents"),
    ],
)
def test_unusable_jsonl_is_refused_with_its_place(tmp_path, content, words):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    error = refused(FilesData(train=str(path)))
    assert error.key == "data.train" and words in str(error)


def test_lines_without_a_value_are_passed_over(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('\ufeff\n{"text": "a"}\n\u00a0\n{"text": "b"}\n', encoding="utf-8")
    assert len(read_documents(FilesData(train=str(path))).train) == 1


def test_unusable_validation_file_is_named_by_its_own_key(tmp_path):
    train = write_jsonl(tmp_path / "t.jsonl", ROWS)
    bad = tmp_path / "v.jsonl"
    bad.write_text("{")
    assert refused(FilesData(train=train, validation=str(bad))).key == "data.validation"


def test_unusable_parquet_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 no more")
    assert "cannot be read as Parquet" in str(refused(FilesData(train=str(path))))
    write_parquet(path, [{"texts": "a"}])
    assert "did you mean 'texts'?" in str(refused(FilesData(train=str(path))))
    pyarrow.parquet.write_table(pyarrow.table({"text": [b"a"]}), path)
    assert "row 1 of" in str(refused(FilesData(train=str(path))))


def test_missing_and_unknown_files_are_refused(tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", ROWS)
    (tmp_path / "corpus.pdf").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.txt").write_bytes(b"caf\xe9")
    cases = {
        None: "data.train=PATH",
        str(tmp_path / "corpsu.jsonl"): "did you mean 'corpus.jsonl'?",
        str(tmp_path / "nowhere" / "corpus.jsonl"): "does not exist",
        str(tmp_path / "corpus.pdf"): "files of kind '.pdf' are not read",
        str(tmp_path / "empty"): "holds none",
        str(tmp_path / "t.txt"): "is not UTF-8",
    }
    for name, words in cases.items():
        error = refused(FilesData(train=name))
        assert error.key == "data.train" and words in str(error)


REAL_MIX = Path(__file__).parents[2].parent / "shared" / "data" / "real_mix"


@pytest.mark.slow
@pytest.mark.skipif(not REAL_MIX.is_dir(), reason="needs the real text mix beside the checkout")
def test_the_real_mix_loads_with_all_its_domains(tmp_path):
    corpus = load_corpus(FilesData(train=str(REAL_MIX)), tmp_path)
    assert corpus.domains == ["code", "dialogue", "encyclopedia", "literature", "math", "science"]
    assert set(corpus.eval_domain_ids.ravel()) == set(range(6))
    assert corpus.train_blocks_MS.size > 2_000_000
    assert corpus.eval_blocks.size == 32_768


def test_a_domain_field_that_no_row_has_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "t.jsonl", ROWS)
    assert "data.domain_field" in str(refused(FilesData(train=path, domain_field="domian")))
    assert len(read_documents(FilesData(train=path, domain_field="domain")).train) > 0


def test_a_pipe_is_refused_at_once(tmp_path):
    import os

    os.mkfifo(tmp_path / "t.jsonl")
    assert "not a regular file" in str(refused(FilesData(train=str(tmp_path / "t.jsonl"))))
