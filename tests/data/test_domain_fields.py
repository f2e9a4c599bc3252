"""Which domain a row has: dotted paths, lists, objects, and fields that are no domain."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from spectra_exp.data.rows import MISSING, find
from spectra_exp.data.sources import read_documents
from spectra_exp.data.sources.files import FilesData
from spectra_exp.data.sources.hub import CosmopediaData
from spectra_exp.foundations.errors import ConfigError

ROWS = [
    {"text": f"text {i}", "meta": {"set": "ab"[i % 2], "id": i}, "tags": ["xy"[i % 2], "en"], "a.b": "dot"}
    for i in range(40)
]


@pytest.fixture(scope="module", params=["jsonl", "parquet", "hub"])
def source(request, tmp_path_factory):
    """The same rows as a file of either kind and as a data set of the hub."""
    path = tmp_path_factory.mktemp("rows") / f"t.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return lambda field: FilesData(train=str(path), domain_field=field)
    if request.param == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        return lambda field: FilesData(train=str(path), domain_field=field)
    (path / "all").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path / "all" / "train.parquet")
    files = "  data_files:\n  - split: train\n    path: all/train.parquet\n"
    (path / "README.md").write_text(f"---\nconfigs:\n- config_name: all\n{files}---\n")
    return lambda field: CosmopediaData(path=str(path), subsets=["all"], domain_field=field)


@pytest.mark.parametrize(
    ("field", "domains"),
    [
        ("meta.set", {"a", "b"}),
        ("tags.0", {"x", "y"}),
        ("tags.1", {"en"}),
        ("a.b", {"dot"}),
        ("tags.7", {"unlabelled"}),
    ],
)
def test_dotted_paths_lead_to_the_domain(source, field, domains):
    config = source(field)
    if field == "tags.7" and isinstance(config, FilesData):
        pytest.skip("a field that no row of a file has is refused")
    assert {d.domain for d in read_documents(config).train} == domains


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("meta", "is an object; name one of its fields: meta.set, meta.id"),
        ("tags", "is a list, ['x', 'en']; choose one of its entries, such as data.domain_field=tags.0"),
        ("meta.id", "domains for"),
        ("text", "domains for"),
    ],
)
def test_what_is_no_domain_is_refused_with_the_choice(source, field, words):
    with pytest.raises(ConfigError) as caught:
        read_documents(source(field))
    assert caught.value.key == "data.domain_field" and words in str(caught.value)
    if words == "domains for":
        assert "there are: text, meta.set, meta.id, tags, a.b" in str(caught.value)


def test_a_name_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    for name in ("t.jsonl", "t.parquet"):
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
        with pytest.raises(ConfigError) as caught:
            read_documents(FilesData(train=str(tmp_path / name), domain_field="meta.ste"))
        assert "did you mean 'meta.set'? there are: text, meta.set, meta.id, tags, a.b" in str(caught.value)


def test_few_documents_may_have_a_domain_each(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "domain": f"d{i // 2}"}) + "\n" for i in range(16)))
    assert len(read_documents(FilesData(train=str(path))).train) == 8


def test_find_tells_nothing_from_null():
    row = {"a": None, "b": {"c": None, "d.e": 1}, "l": [1, {"m": 2}]}
    assert find(row, "a") is None and find(row, "b.c") is None and find(row, "l.1.m") == 2
    for name in ("x", "a.b", "b.x", "l.2", "l.-1", "l.x", "l." + "9" * 5000, ""):
        assert find(row, name) is MISSING
