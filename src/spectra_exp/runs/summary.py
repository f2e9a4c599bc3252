"""A run's summary.json: what every reader may rely on, and the reason when it may not.

On disk it carries a seal: hashes of the run's files and of its own content, by which an edit is told. Who made the run
writes what `sealed` gives; who adds to a summary calls `change_summary`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import SpectraError, first_line
from spectra_exp.foundations.files import atomic_path, is_file_name, json_text, regular, write_json
from spectra_exp.runs.file_hashes import differing, hashes_of, sha256_of
from spectra_exp.runs.scores import DOCUMENTS, ITEMS

SCHEMA = 1
LARGEST = 10**300
LONGEST_NAME = 1000
STATUSES = ("completed", "failed", "diverged", "stopped", "running", "not_run")

# What tables, figures and reports read of a run beside its summary.
SEALED_FILES = (
    "config.yaml",
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
    "environment.json",
    "history.parquet",
    DOCUMENTS,
    ITEMS,
    "routing/step-*.npz",
)
SEAL = "seal"

_TEXT = (
    "run_id",
    "cell_id",
    "name",
    "label",
    "router",
    "osr",
    "selection",
    "temperature",
    "baseline",
    "ablation",
    "model",
    "data",
)
_NUMBERS = ("metrics", "metrics_training_rule", "floors", "parameters")


class Summary(dict[str, Any]):
    """A summary as read. `seal` is None for one without: written by earlier code or by hand.

    The seal is of the files, not one of the figures: it has no part in comparisons, and a copy is without it.
    """

    seal: dict[str, Any] | None = None


def sealed(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What to write as the summary of the run in `folder`: `content`, with the seal of its files as they are now."""
    return _with_seal(content, {"files": hashes_of(folder, SEALED_FILES)})


def change_summary(path: Path, changes: Mapping[str, Any]) -> Summary:
    """Write `changes` of whole keys into the summary at `path`; returns it.

    The seal stays that of the files as the run left them; a summary that was edited by hand stays known as edited.
    Raises SpectraError as `read_summary` does.
    """
    summary = read_summary(path)
    edited, seal = summary_edited(summary), summary.seal
    summary.update(changes)
    if seal is not None:
        write_json(path, summary | {SEAL: seal} if edited else _with_seal(summary, seal))
    else:
        write_json(path, summary)
    return summary


def change_with_file(path: Path, file: Path, write: Callable[[Path], None], changes: Mapping[str, Any]) -> None:
    """Replace `file` of a run's folder by what `write` writes, and write `changes` into the run's summary at `path`.

    A kill at any moment leaves a summary whose seal fits: until both are written it is of the earlier file, where there
    is one, and of the new one. The caller has found the run not edited. Raises SpectraError as `read_summary` does.
    """
    summary, name = read_summary(path), file.relative_to(path.parent).as_posix()
    with atomic_path(file) as new:
        write(new)
        coming = {name: sha256_of(new)}
        if summary.seal is not None:
            files = summary.seal["files"] | ({name: sha256_of(file)} if file.exists() else {})
            write_json(path, _with_seal(summary, {"files": files, "coming": coming}))
    summary.update(changes)
    write_json(path, summary if summary.seal is None else _with_seal(summary, {"files": files | coming}))


def check_files(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """Names of the run's files that are missing, edited or added since the summary was sealed; none if it was not."""
    seal = getattr(summary, "seal", None)
    if seal is None:
        return []
    coming = seal.get("coming", {})
    arrived = coming.keys() - set(differing(folder, coming))
    there = {path.relative_to(folder).as_posix() for pattern in SEALED_FILES for path in folder.glob(pattern)}
    return sorted({*differing(folder, seal["files"]), *there.difference(seal["files"])} - arrived)


def summary_edited(summary: Mapping[str, Any]) -> bool:
    """Whether a sealed summary's content is not what its writer wrote; False of one without a seal."""
    seal = getattr(summary, "seal", None)
    return seal is not None and seal["content"] != _digest(summary)


def _with_seal(content: Mapping[str, Any], seal: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with a seal of the files in `seal`: `files`, and in place of some of them those in `coming`."""
    # As a reader will see it: NaN is null, a tuple a list.
    plain: dict[str, Any] = json.loads(json_text(content))
    return plain | {SEAL: {**seal, "content": _digest(plain)}}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_summary(path: str | os.PathLike[str]) -> Summary:
    """The summary at `path`; raises SpectraError with the reason when it is missing, damaged or foreign."""
    file = Path(path)
    try:
        summary = json.loads(regular(file).read_text(encoding="utf-8"))
        # A lone surrogate could not be written anywhere.
        json.dumps(summary, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise SpectraError(f"{file}: no summary yet") from None
    except (OSError, ValueError, RecursionError) as error:
        # Brackets within brackets, thousands deep, end in a RecursionError.
        raise SpectraError(f"{file}: not readable as JSON ({first_line(error)})") from error
    problem = summary_problem(summary)
    if problem:
        raise SpectraError(f"{file}: {problem}")
    found = Summary(summary)
    found.seal = found.pop(SEAL, None)
    return found


def summary_problem(summary: Any) -> str | None:
    """What keeps `summary` from being a run's summary of this schema, in words, or None."""
    if not isinstance(summary, dict) or "schema" not in summary:
        return "not a run's summary"
    if summary["schema"] != SCHEMA:
        return f"schema {summary['schema']} is not the schema {SCHEMA} that this code reads; run it again"
    if summary.get("status") not in STATUSES:
        return f"status {summary.get('status')!r} is none of {', '.join(STATUSES)}"
    if not _is_seal(summary.get(SEAL)):
        return f"'{SEAL}' is not what a summary holds there"
    odd = _odd_type(summary)
    # A run that failed early may have had nothing to say yet.
    if odd or summary["status"] != "completed":
        return odd
    for key in _TEXT:
        if not isinstance(summary.get(key), str) or len(summary[key]) > LONGEST_NAME:
            return f"'{key}' is missing or not a text of at most {LONGEST_NAME} letters"
    if type(summary.get("seed")) is not int:
        return "'seed' is missing or not a whole number"
    for key in (*_NUMBERS, "fingerprints"):
        if not isinstance(summary.get(key), dict):
            return f"'{key}' is missing or not a table of names and values"
    for key in _NUMBERS:
        for name, value in summary[key].items():
            if value is not None and not _is_number(value):
                return f"'{key}.{name}' is not a number"
    return None


def _odd_type(summary: dict[str, Any]) -> str | None:
    """Which part that a summary need not have is not what it should be, in words, or None."""
    wanted: dict[str, Any] = {
        "timings": _table_of(_is_number_or_none),
        "metrics_by_inference": _table_of(_table_of(_is_number_or_none)),
        "metrics_by_layer": _table_of(_list_of(_is_number_or_none)),
        "initial_weights": _table_of(_is_text),
        "studies": _list_of(_is_study),
        "max_steps": lambda value: type(value) is int,
        "causal": lambda value: isinstance(value, bool),
        "causal_training": lambda value: isinstance(value, bool),
        "flops_per_token": _is_number,
        "size_as_measured": lambda value: isinstance(value, bool),
        "fingerprints": _table_of(lambda value: value is None or _is_text(value)),
        "label": _is_text,
        "command": _is_text,
        "error": _is_text,
        "finished": _is_text,
        "cell_id": _is_text,
        "parameters": _table_of(_is_number_or_none),
    }
    for key, fits in wanted.items():
        if summary.get(key) is not None and not fits(summary[key]):
            return f"'{key}' is not what a summary holds there"
    return None


def _is_seal(value: Any) -> bool:
    if value is None:
        return True
    hashes = [value.get("files"), value.get("coming", {})] if isinstance(value, dict) else [None]
    return all(map(_table_of(_is_text), hashes)) and _is_text(value.get("content"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_study(value: Any) -> bool:
    return isinstance(value, str) and is_file_name(value)


def _is_number(value: Any) -> bool:
    # NaN and infinity are numbers that the tables leave empty; an integer may be larger than any float.
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _table_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))
