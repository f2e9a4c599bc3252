"""A run's summary.json: what every reader may rely on, and the reason when it may not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import SpectraError

SCHEMA = 1
LARGEST = 10**300
STATUSES = ("completed", "failed", "diverged", "stopped", "running", "not_run")

_TEXT = (
    "run_id", "cell_id", "name", "label", "router", "osr", "selection", "temperature", "baseline", "ablation",
    "model", "data",
)  # fmt: skip
_NUMBERS = ("metrics", "metrics_training_rule", "floors", "parameters")


def read_summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The summary at `path`; raises SpectraError with the reason when it is missing, damaged or foreign."""
    file = Path(path)
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpectraError(f"{file}: no summary yet") from None
    except (OSError, ValueError) as error:
        raise SpectraError(f"{file}: not readable as JSON ({str(error).splitlines()[0]})") from error
    problem = _problem(summary)
    if problem:
        raise SpectraError(f"{file}: {problem}")
    return summary


def _problem(summary: Any) -> str | None:
    """What keeps `summary` from being a run's summary of this schema, in words, or None."""
    if not isinstance(summary, dict) or "schema" not in summary:
        return "not a run's summary"
    if summary["schema"] != SCHEMA:
        return f"schema {summary['schema']} is not the schema {SCHEMA} that this code reads; run it again"
    if summary.get("status") not in STATUSES:
        return f"status {summary.get('status')!r} is none of {', '.join(STATUSES)}"
    # A run that failed early may have had nothing to say yet.
    if summary["status"] != "completed":
        return None
    for key in _TEXT:
        if not isinstance(summary.get(key), str):
            return f"'{key}' is missing or not text"
    if type(summary.get("seed")) is not int:
        return "'seed' is missing or not a whole number"
    for key in (*_NUMBERS, "fingerprints"):
        if not isinstance(summary.get(key), dict):
            return f"'{key}' is missing or not a table of names and values"
    for key in _NUMBERS:
        for name, value in summary[key].items():
            if value is not None and not _is_number(value):
                return f"'{key}.{name}' is not a number"
    return _odd_type(summary)


def _odd_type(summary: dict[str, Any]) -> str | None:
    """Which part that a summary need not have is not what it should be, in words, or None."""
    wanted: dict[str, Any] = {
        "timings": _table_of(_is_number_or_none),
        "metrics_by_inference": _table_of(_table_of(_is_number_or_none)),
        "metrics_by_layer": _table_of(_list_of(_is_number_or_none)),
        "initial_weights": _table_of(_is_text),
        "studies": _list_of(_is_text),
        "max_steps": lambda value: type(value) is int,
        "causal": lambda value: isinstance(value, bool),
        "causal_training": lambda value: isinstance(value, bool),
        "flops_per_token": _is_number,
        "fingerprints": _table_of(lambda value: value is None or _is_text(value)),
        "label": _is_text,
        "command": _is_text,
    }
    for key, fits in wanted.items():
        if summary.get(key) is not None and not fits(summary[key]):
            return f"'{key}' is not what a summary holds there"
    return None


def _is_text(value: Any) -> bool:
    # A lone surrogate could not be written anywhere.
    return isinstance(value, str) and not any(0xD800 <= ord(letter) <= 0xDFFF for letter in value)


def _is_number(value: Any) -> bool:
    # NaN and infinity are numbers that the tables leave empty; an integer may be larger than any float.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _table_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))
