"""Declared options: limits hold, and the help shows what was declared."""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.config.register import group_schemas
from spectra_exp.config.schema import GROUPS, RootKeys
from spectra_exp.data.sources.files import FilesData
from spectra_exp.downstream.options import EvaluateOptions
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import check_fields, describe_fields, option


@dataclass
class Inner:
    rate: float = option(0.5, "a rate", above=0, maximum=1)


@dataclass
class Outer:
    count: int = option(2, "how many", unit="things", minimum=1)
    kind: str = option("red", "which colour", choices=["red", "green"])
    size: int | None = option(None, "size, none: as it comes", minimum=1)
    free: float = option(0.0, "any number")
    names: list[str] = option(["a"], "names")
    inner: Inner | None = option(None, "more")


@pytest.fixture
def outer():
    return Outer(inner=Inner())


def test_defaults_pass(outer):
    check_fields(outer, "group")


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("count", 0, "group.count: 0 was given; must be at least 1"),
        ("kind", "gren", "group.kind: 'gren' is not accepted; did you mean 'green'? valid: red, green"),
        ("size", 0, "must be at least 1"),
        ("free", float("nan"), "group.free: nan was given; must be a finite number"),
        ("free", float("inf"), "must be a finite number"),
        ("free", -float("inf"), "must be a finite number"),
    ],
)
def test_a_value_outside_its_limits_is_refused(outer, name, value, words):
    setattr(outer, name, value)
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        check_fields(outer, "group")


@given(st.floats())
def test_a_bounded_number_passes_exactly_within_its_bounds(value):
    outer = Outer(inner=Inner(rate=value))
    if 0 < value <= 1:
        check_fields(outer, "group")
    else:
        with pytest.raises(ConfigError) as error:
            check_fields(outer, "group")
        assert error.value.key == "group.inner.rate"


def numeric_fields():
    schemas = [EvaluateOptions, RootKeys, *(node for group in GROUPS for node in group_schemas(group).values())]
    return [
        pytest.param(f, id=f"{node.__name__}.{f.name}")
        for node in schemas
        for f in fields(node)
        if str(f.type).split(" ")[0] in ("int", "float")
    ]


@pytest.mark.parametrize("field", numeric_fields())
def test_every_number_has_bounds_on_both_sides_with_the_default_between_them(field):
    assert field.metadata["maximum"] is not None and field.metadata["maximum"] <= 2**32
    low = field.metadata["above"] if field.metadata["minimum"] is None else field.metadata["minimum"]
    assert low is not None
    assert field.default is None or low <= field.default <= field.metadata["maximum"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("a" * 256, "holds a name of more than 255 bytes"),
        ("folder/" + "é" * 130, "holds a name of more than 255 bytes"),
        ("a/" * 2000, "has 4000 bytes; give at most 2048"),
        ("a\0b", "holds a control character"),
        ("a\udcffb", "holds a control character"),
    ],
)
def test_a_path_that_no_file_system_takes_is_refused(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        check_fields(FilesData(train=text), "data")
    assert error.value.key == "data.train" and len(str(error.value)) < 200


def test_names_in_a_list_are_checked_too(outer):
    outer.names = ["a", "b" * 3000]
    with pytest.raises(ConfigError, match="has 3000 bytes"):
        check_fields(outer, "group")


def test_mutable_defaults_are_not_shared():
    first, second = Outer(inner=Inner()), Outer(inner=Inner())
    first.names.append("b")
    assert second.names == ["a"]


def test_the_types_of_a_module_that_evaluates_them_read_the_same():
    types = {"rate": float, "size": int | None, "names": list[str]}
    schema = make_dataclass("Evaluated", [(name, kind, option(None, "any")) for name, kind in types.items()])
    assert [row["type"] for row in describe_fields(schema)] == ["float", "int | None", "list[str]"]


def test_the_help_shows_type_default_unit_and_limits():
    rows = {row["name"]: row for row in describe_fields(Outer)}
    assert rows["count"] == {
        "name": "count",
        "type": "int",
        "default": "2",
        "meaning": "how many",
        "told": "how many (things) [>= 1]",
    }
    assert rows["names"]["type"] == "list[str]"
    assert rows["size"]["type"] == "int | None"
    assert rows["kind"]["told"] == "which colour [red, green]"
    assert {row["name"]: row["told"] for row in describe_fields(Inner)} == {"rate": "a rate [> 0, <= 1]"}


def test_of_many_valid_names_those_most_alike_are_listed() -> None:
    told = str(ConfigError.unknown("run", "switch-s7", [f"switch-s{i}" for i in range(1000)] + ["other"]))
    assert "did you mean 'switch-s7" in told and "1001 are valid" in told and len(told) < 200
    assert str(ConfigError.unknown("run", "x", [])) == "run: unknown name 'x'; valid: none"
    assert "valid: a, b" in str(ConfigError.unknown("run", "x", "ba"))
