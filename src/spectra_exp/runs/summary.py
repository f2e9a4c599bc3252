"""A run's summary.json: what every reader may rely on, and the reason when it may not."""

from __future__ import annotations

import json
import os
from numbers import Real
from pathlib import Path
from typing import Any

from spectra_exp.errors import SpectraError

SCHEMA = 1
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
            if value is not None and not isinstance(value, Real):
                return f"'{key}.{name}' is not a number"
    return None
