"""Declared options: a dataclass field with its meaning, unit and range, checked in one place."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection
from dataclasses import MISSING, Field, field, fields, is_dataclass
from inspect import formatannotation
from typing import Any

from spectra_exp.foundations.bounds import LONGEST_NAME, LONGEST_TEXT
from spectra_exp.foundations.errors import ConfigError, nearest


def option(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    choices: Collection[Any] | None = None,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    affects_result: bool = True,
    later: bool = False,
    path: bool = False,
    any_text: bool = False,
) -> Any:
    """A dataclass field for one configuration key.

    `meaning` is one line for `--help GROUP`; `unit` such as "tokens" or "steps"; `choices` lists the accepted
    values; `above` is an exclusive lower bound, `minimum` and `maximum` are inclusive. None passes every check.
    `affects_result=False` keeps a key out of the run's signature; `later` does so at its default, so that runs from
    before there was the key keep their ids. `path` says that a text names a file or a folder;
    `any_text` that it is one to be read, of any length and with line breaks.
    """
    metadata = dict(
        meaning=meaning,
        unit=unit,
        choices=choices,
        above=above,
        minimum=minimum,
        maximum=maximum,
        affects_result=affects_result,
        later=later,
        path=path,
        any_text=any_text,
    )
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(declared: Field) -> Any:
    """The default of a field; a list's is a new one each time."""
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


def check_fields(config: Any, path: str) -> None:
    """Raise ConfigError for the first field of the dataclass `config` outside its declared choices or range."""
    for f in fields(config):
        value, key = getattr(config, f.name), f"{path}.{f.name}" if path else f.name
        if is_dataclass(value):
            check_fields(value, key)
        elif value is not None:
            _check_value(key, value, f.metadata)


def _check_value(key: str, value: Any, limits: Any) -> None:
    for element in value if isinstance(value, list) else []:
        if not isinstance(element, str):
            raise ConfigError(key, f"{element!r} is not a text", "it is a list of texts: [a,b]")
        _check_text(key, element, path=False)
    if isinstance(value, str) and not limits.get("any_text"):
        _check_text(key, value, limits.get("path", False))
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        close = nearest(value, choices)
        hint = f"did you mean '{close}'? " if close else ""
        raise ConfigError(key, f"'{value}' is not accepted", hint + "valid: " + ", ".join(map(str, choices)))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, f"{value} was given", "must be a finite number")
    for bound, good, words in (
        ("above", lambda v, b: v > b, "must be greater than"),
        ("minimum", lambda v, b: v >= b, "must be at least"),
        ("maximum", lambda v, b: v <= b, "must be at most"),
    ):
        limit = limits.get(bound)
        if limit is not None and not good(value, limit):
            raise ConfigError(key, f"{value} was given", f"{words} {limit}")


def _check_text(key: str, text: str, path: bool) -> None:
    """Refuse what no file name or table could hold; of a `path` also what no file system takes."""
    shown = f"{text[:40]!r}..." if len(text) > 40 else repr(text)
    if not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ConfigError(key, f"{shown} holds a control character", "leave it out")
    size = len(text.encode())
    if size > LONGEST_TEXT:
        raise ConfigError(key, f"{shown} has {size} bytes", f"give at most {LONGEST_TEXT}")
    if path and any(len(part.encode()) > LONGEST_NAME for part in text.split("/")):
        raise ConfigError(key, f"{shown} holds a name of more than {LONGEST_NAME} bytes", "no file has such a name")


def type_name(f: Field[Any]) -> str:
    """The type of a field as its source has it, also where the module has evaluated it."""
    return f.type if isinstance(f.type, str) else formatannotation(f.type)


def describe_fields(schema: type) -> list[dict[str, str]]:
    """One row per key of a schema, for the help text: name, type, default, meaning; `told`: with unit and limits."""
    rows = []
    for f in fields(schema):
        m = f.metadata
        default = default_of(f)
        accepted = ", ".join(map(str, m["choices"])) if m.get("choices") else _range_text(m)
        meaning = m.get("meaning", "")
        told = meaning + (f" ({m['unit']})" if m.get("unit") else "") + (f" [{accepted}]" if accepted else "")
        rows.append(dict(name=f.name, type=type_name(f), default=str(default), meaning=meaning, told=told))
    return rows


def _range_text(m: Any) -> str:
    parts = [f"> {m['above']}"] if m.get("above") is not None else []
    parts += [f">= {m['minimum']}"] if m.get("minimum") is not None else []
    parts += [f"<= {m['maximum']}"] if m.get("maximum") is not None else []
    return ", ".join(parts)
