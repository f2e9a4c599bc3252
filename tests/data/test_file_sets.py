"""Folders and patterns: many files as one set, their splits, and the sub-folder as domain."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spectra_exp.data.corpus import data_fingerprint
from spectra_exp.data.sources import check_data, read_documents
from spectra_exp.data.sources.files import FilesData
from spectra_exp.foundations.errors import ConfigError


def put(root: Path, **files: int) -> str:
    """Files of so many rows each, by path; `__` stands for a slash, `_DOT_` for the dot before the kind."""
    for name, rows in files.items():
        path = root / (name.replace("__", "/").replace("_DOT_", ".") + ("" if "_DOT_" in name else ".jsonl"))
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"{path.relative_to(root)} says {i}" for i in range(rows)]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(root)


def refused(config: FilesData) -> str:
    with pytest.raises(ConfigError) as caught:
        check_data(config)
        read_documents(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_of(documents) -> set[str]:
    return {d.text.partition(" says")[0] for d in documents}


def test_shards_are_one_set_by_folder_and_by_pattern(tmp_path):
    folder = put(tmp_path, **{f"train-{i:05d}-of-00003": 10 for i in range(3)})
    by_folder, by_pattern = FilesData(train=folder), FilesData(train=f"{folder}/*.jsonl")
    assert len(read_documents(by_folder).train) == 27
    assert data_fingerprint(by_folder) == data_fingerprint(by_pattern)
    # One of them is what it always was, and other data.
    assert data_fingerprint(FilesData(train=f"{folder}/train-00000*")) == data_fingerprint(
        FilesData(train=f"{folder}/train-00000-of-00003.jsonl")
    )
    assert data_fingerprint(by_folder) != data_fingerprint(FilesData(train=f"{folder}/train-0000[01]*"))


@pytest.mark.parametrize("layout", ["{}-0", "{}__part", "data__{}-00000-of-00001"])
def test_a_folder_laid_out_by_split_gives_both_and_says_what_it_leaves(tmp_path, layout):
    folder = put(tmp_path, **{layout.format(s): 4 for s in ("train", "validation", "test")}, other=2)
    splits = read_documents(FilesData(train=folder))
    assert all("train" in name for name in files_of(splits.train))
    assert all("validation" in name for name in files_of(splits.validation))
    assert splits.notes == [f"not all files of {folder} are read, left out are: 2 .jsonl"]


def test_a_validation_file_that_is_not_read_is_told(tmp_path):
    folder = put(tmp_path, train=4, val=2)
    assert read_documents(FilesData(train=folder)).notes == [
        f"not all files of {folder} are read, left out are: 1 .jsonl"
    ]
    assert not read_documents(FilesData(train=folder, validation=f"{folder}/val.jsonl")).notes
    put(tmp_path, validation=2)
    both = read_documents(FilesData(train=folder, validation=folder)).notes
    assert both == [f"not all files of {folder} are read, left out are: 1 .jsonl"] * 2


def test_files_are_not_taken_for_a_split_where_none_is_for_training(tmp_path):
    folder = put(tmp_path, test=5, training_camps=5, notes=5)
    splits = read_documents(FilesData(train=folder))
    assert len(splits.train + splits.validation) == 15
    put(tmp_path, **{"train-0": 5})
    assert "must hold a validation file" in refused(FilesData(train=folder, validation=folder))


def test_a_text_file_among_others_is_one_document_and_its_folder_the_domain(tmp_path):
    for number, name in enumerate(("science/a", "science/b", "web/deeper/c", "top")):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"number {number}\n\nand more")
    splits = read_documents(FilesData(train=str(tmp_path)))
    found = {d.text[7]: d.domain for d in splits.train + splits.validation}
    assert found == {"0": "science", "1": "science", "2": "web", "3": "unlabelled"}
    by_pattern = read_documents(FilesData(train=f"{tmp_path}/*/*.txt"))
    assert {d.domain for d in by_pattern.train + by_pattern.validation} == {"science"}
    none = FilesData(train=str(tmp_path), domain_field=None)
    assert {d.domain for d in read_documents(none).train} == {"unlabelled"}
    assert data_fingerprint(none) != data_fingerprint(FilesData(train=str(tmp_path)))
    # Moved to another folder, a document has another domain.
    before = data_fingerprint(FilesData(train=str(tmp_path)))
    (tmp_path / "science").rename(tmp_path / "arts")
    assert before != data_fingerprint(FilesData(train=str(tmp_path)))


def test_a_row_names_its_domain_before_its_folder_does(tmp_path):
    for folder in ("domain=x", "y"):
        (tmp_path / folder).mkdir()
        rows = [{"text": f"{folder} {i}", **({"domain": "own"} if i < 5 else {})} for i in range(10)]
        (tmp_path / folder / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert {d.domain for d in read_documents(FilesData(train=str(tmp_path))).train} == {"own", "x", "y"}


def test_a_folder_of_many_kinds_is_read_but_no_copies(tmp_path):
    folder = put(tmp_path, a=5, sub__b=5)
    (tmp_path / "c.csv").write_text("text\n" + "".join(f"c.csv says {i}\n" for i in range(5)))
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.jsonl").write_text("{")
    splits = read_documents(FilesData(train=folder))
    assert files_of(splits.train + splits.validation) == {"a.jsonl", "sub/b.jsonl", "c.csv"}
    assert splits.notes == [
        f"10 of 15 documents of {folder} have no 'domain' (data.domain_field): they count as 'unlabelled'",
        f"not all files of {folder} are read, left out are: 1 .md",
    ]
    (tmp_path / "a.csv").write_text("text\nx\n")
    assert "a.csv and a.jsonl" in refused(FilesData(train=folder))
    assert read_documents(FilesData(train=f"{folder}/*.jsonl")).train


def test_patterns_without_a_file_that_is_read_are_refused(tmp_path):
    folder = put(tmp_path, a=5)
    (tmp_path / "README.md").write_text("about")
    assert "no file matches" in refused(FilesData(train=f"{folder}/*.parquet"))
    assert "files of kind '.md' are not read" in refused(FilesData(train=f"{folder}/*.md"))
    assert "no file has such a name" in refused(FilesData(train=f"{folder}/{'x' * 300}"))
    assert "holds a control character" in refused(FilesData(train=f"{folder}/a.jsonl", validation="v\0"))


def test_a_domain_for_every_sub_folder_is_refused(tmp_path):
    folder = put(tmp_path, **{f"folder{i}__text": 1 for i in range(15)})
    assert "15 domains for 15 documents" in refused(FilesData(train=folder))
    assert read_documents(FilesData(train=folder, domain_field=None)).train


def test_a_file_that_links_lead_to_is_read_once(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "one.txt").write_text("first document\n\nsecond document")
    (folder / "latest.txt").symlink_to(folder / "one.txt")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    (folder / "again").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    for name in (folder, f"{folder}/*.txt", f"{folder}/**", f"{folder}/**/*.txt"):
        splits = read_documents(FilesData(train=str(name), validation_fraction=0.5))
        assert len(splits.train) + len(splits.validation) == 2, name
