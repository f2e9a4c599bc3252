"""Hashes by which a later reader tells that files of a folder are still the ones that were written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from spectra_exp.foundations.files import regular


def sha256_of(path: str | os.PathLike[str]) -> str:
    """64 hex digits over the file's content; raises OSError when it cannot be read."""
    with open(regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """sha256 of each file in `folder` that one of the glob `patterns` names, by relative path, in order of paths."""
    paths = {path.relative_to(folder).as_posix(): path for pattern in patterns for path in folder.glob(pattern)}
    return {name: sha256_of(path) for name, path in sorted(paths.items()) if path.is_file()}


def differing(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Names in `hashes` (relative path: sha256) whose file in `folder` is missing, unreadable or another one."""
    return [name for name, hash_ in hashes.items() if _hash_or_none(folder / name) != hash_]


def _hash_or_none(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
