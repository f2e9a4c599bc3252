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
    ],
)
def test_dotted_paths_lead_to_the_domain(source, field, domains):
    assert {d.domain for d in read_documents(source(field)).train} == domains


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("meta", "is an object; name one of its fields: meta.set, meta.id"),
        ("tags", "is a list, ['x', 'en']; choose one of its entries, such as data.domain_field=tags.0"),
        ("meta.id", "domains for"),
        ("text", "domains for"),
        ("tags.7", "has a 'tags.7'"),
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


KINDS = {
    "csv": lambda rows: "text,set\n" + "".join(f"{row['text']},{row['set']}\n" for row in rows),
    "jsonl": lambda rows: "".join(json.dumps({k: v for k, v in row.items() if v}) + "\n" for row in rows),
}


def labelled(path, domains):
    """A file of one row for each domain; its suffix says the kind."""
    rows = [{"text": f"{path.stem} {i}", "set": domain} for i, domain in enumerate(domains)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([row | {"set": row["set"] or None} for row in rows]), path
        )
    else:
        path.write_text(KINDS[path.suffix[1:]](rows))
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_without_a_domain_are_counted_aloud(tmp_path, kind):
    some = labelled(tmp_path / f"some.{kind}", ["a", "b", ""] * 10)
    read = read_documents(FilesData(train=some, domain_field="set"))
    told = f"10 of 30 documents of {some} have no 'set' (data.domain_field): they count as 'unlabelled'"
    assert read.notes == [told]
    full = labelled(tmp_path / f"full.{kind}", ["a", "b"] * 10)
    assert read_documents(FilesData(train=full, domain_field="set")).notes == []
    none = labelled(tmp_path / f"none.{kind}", [""] * 10)
    told = f"10 of 10 documents of {none} have no 'set' (data.domain_field): they count as 'unlabelled'"
    assert read_documents(FilesData(train=full, validation=none, domain_field="set")).notes == [told]
    empty = ": all are empty" if kind != "jsonl" else "; check its name"
    with pytest.raises(ConfigError, match=f"none of the 10 documents of {none} has a 'set'{empty}"):
        read_documents(FilesData(train=none, validation=full, domain_field="set"))


def test_a_column_that_looks_like_the_usual_one_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,Domain\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))
    (told,) = read_documents(FilesData(train=str(path))).notes
    assert told == f"20 of 20 documents of {path} have no 'domain' (data.domain_field); there is 'Domain'"
    path.write_text("text,domain\n" + "".join(f"text {i},\n" for i in range(20)))
    (told,) = read_documents(FilesData(train=str(path))).notes
    assert told == f"20 of 20 documents of {path} have no 'domain' (data.domain_field): all are empty"
    plain = labelled(tmp_path / "plain.csv", ["a"] * 20)
    assert read_documents(FilesData(train=plain)).notes == []


def test_a_chosen_column_that_no_row_of_a_hub_set_has_is_refused(source):
    with pytest.raises(ConfigError, match="none of the 40 documents .* has a 'meta.ste'.*did you mean 'meta.set'"):
        read_documents(source("meta.ste"))
