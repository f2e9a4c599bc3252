"""A cache of folders, each built once: whole or not there, safe when two processes ask at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_exp.foundations.files import one_line_errors

Progress = Callable[[str], None]
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CacheEntry:
    """A finished folder and the facts that its builder returned."""

    folder: Path
    facts: dict[str, Any]


def silent(line: str) -> None:
    """The progress callback that says nothing."""


def cached_folder(
    cache_dir: Path, key: str, build: Callable[[Path], dict[str, Any]], progress: Progress = silent
) -> CacheEntry:
    """The folder `cache_dir/key`, built by `build(folder) -> facts` unless a whole one is there.

    The build happens under a lock, in another folder that is renamed when it is complete, so that a killed
    builder leaves nothing that is believed. An entry that lost a file, or whose file changed its size, is
    built again. `facts` must be plain JSON. Raises SpectraError where the file system refuses (full, no permission).
    """
    entry = read_entry(cache_dir / key)
    if entry is not None:
        return entry
    import filelock

    with one_line_errors(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(cache_dir / f"{key}.lock")
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            progress(f"waiting for another process that builds {key}")
            lock.acquire()
        try:
            entry = read_entry(cache_dir / key)
            return entry if entry is not None else _build(cache_dir, key, build)
        finally:
            lock.release()


def read_entry(folder: Path) -> CacheEntry | None:
    """The entry in `folder`, or None unless every file of its manifest is there with its size."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: record["bytes"] for name, record in manifest["files"].items()}
        facts = manifest["facts"]
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return CacheEntry(folder, facts) if whole else None


def _build(cache_dir: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> CacheEntry:
    partial, final = cache_dir / f"{key}.partial", cache_dir / key
    # Left by a builder that was killed: nobody else can be in it while we hold the lock.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        facts = build(partial)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(partial.iterdir())
        }
        manifest = json.dumps({"facts": facts, "files": files}, indent=1)
        (partial / _MANIFEST).write_text(manifest, encoding="utf-8")
        with one_line_errors(final):
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return CacheEntry(final, json.loads(manifest)["facts"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
