"""Declared options: a dataclass field with its meaning, unit and range, checked in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

from spectra_exp.foundations.errors import ConfigError, nearest


def option(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    choices: Sequence[Any] | None = None,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    affects_result: bool = True,
    later: bool = False,
) -> Any:
    """A dataclass field for one configuration key.

    `meaning` is one line for `--help GROUP`; `unit` such as "tokens" or "steps"; `choices` lists the accepted
    values; `above` is an exclusive lower bound, `minimum` and `maximum` are inclusive. None passes every check.
    `affects_result=False` keeps a key out of the run's signature; `later` does so at its default, so that runs from
    before there was the key keep their ids.
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
    )
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_fields(config: Any, path: str) -> None:
    """Raise ConfigError for the first field of the dataclass `config` outside its declared choices or range."""
    for f in fields(config):
        value, key = getattr(config, f.name), f"{path}.{f.name}" if path else f.name
        if is_dataclass(value):
            check_fields(value, key)
        elif value is not None:
            _check_value(key, value, f.metadata)


def _check_value(key: str, value: Any, limits: Any) -> None:
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


def describe_fields(schema: type) -> list[dict[str, str]]:
    """One row per key of a schema (name, type, default, unit, meaning, accepted), for the help text."""
    rows = []
    for f in fields(schema):
        m = f.metadata
        default = f.default if f.default is not MISSING else f.default_factory()
        accepted = ", ".join(map(str, m["choices"])) if m.get("choices") else _range_text(m)
        rows.append(
            dict(
                name=f.name,
                type=str(f.type),
                default=str(default),
                unit=m.get("unit", ""),
                meaning=m.get("meaning", ""),
                accepted=accepted,
            )
        )
    return rows


def _range_text(m: Any) -> str:
    parts = [f"> {m['above']}"] if m.get("above") is not None else []
    parts += [f">= {m['minimum']}"] if m.get("minimum") is not None else []
    parts += [f"<= {m['maximum']}"] if m.get("maximum") is not None else []
    return ", ".join(parts)
