"""Helpers of the configuration tests: composing from a command line, flattening, another valid value of a key."""

from __future__ import annotations

import shlex
from dataclasses import Field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.config.tree import project_root
from spectra_exp.runs.identity import Identity, identify


def load(line: str = "") -> Experiment:
    """The experiment of a command line; composed once for each conf/."""
    return _load(line, project_root())


@cache
def _load(line: str, root: Path) -> Experiment:
    return load_experiment(shlex.split(line))


def identity(experiment: Experiment, fingerprint: str = "data", device: str = "cpu") -> Identity:
    return identify(experiment, fingerprint, device)


def run_id(line: str = "") -> str:
    return identity(load(line)).run_id


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested dataclasses by dotted key."""
    values: dict[str, Any] = {}
    for f in fields(node):
        value, key = getattr(node, f.name), f"{path}.{f.name}" if path else f.name
        values |= flat(value, key) if is_dataclass(value) else {key: value}
    return values


def with_value(experiment: Experiment, key: str, value: Any) -> Experiment:
    """The experiment with one dotted key changed and nothing checked."""
    group, _, name = key.partition(".")
    if not name:
        return replace(experiment, **{group: value})
    return replace(experiment, **{group: replace(getattr(experiment, group), **{name: value})})


def another_value(f: Field, value: Any) -> Any:
    """A valid value of a field other than `value`."""
    choices = [c for c in f.metadata["choices"] or [] if c != value]
    if choices:
        return choices[0]
    match value:
        case bool():
            return not value
        case int() | float():
            return _another_number(f, value)
        case str():
            return value + "x"
        case None:
            return {"int | None": 4096, "float | None": 0.5, "str | None": "x"}[str(f.type)]
    raise AssertionError(f.name)


def _another_number(f: Field, value: float) -> float:
    low, high, above = f.metadata["minimum"], f.metadata["maximum"], f.metadata["above"]
    step = 1 if isinstance(value, int) else 0.125
    for candidate in (value + step, value - step, value / 2):
        low_enough, high_enough = high is None or candidate <= high, low is None or candidate >= low
        if low_enough and high_enough and (above is None or candidate > above):
            return candidate
    raise AssertionError(f"no other value of {f.name}")
