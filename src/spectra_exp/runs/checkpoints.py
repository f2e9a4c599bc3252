"""Checkpoints that are whole: staged in a hidden folder, sealed by a manifest, renamed into place."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import fsync, json_text, one_line_errors, regular, told_unreadable, write_text
from spectra_exp.runs.file_hashes import sha256_of

MANIFEST = "manifest.json"
# In a checkpoint: what it needs outside of it, in the run's folder.
NEEDED = "run_files.json"

_NAME = re.compile(r"step-(\d{8,})")
_STAGING, _TRASH, _REPLACED = ".staging-", ".trash-", ".replaced-"

log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run, `folder/step-XXXXXXXX/`; the writer must hold the run's lock.

    A checkpoint appears under its name only when all of it is on the disk. What a killed writer leaves
    behind has a hidden name, and `clean` removes it.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies once it is committed."""
        return self.folder / f"step-{step:08d}"

    def staging(self, step: int) -> Path:
        """A new, empty folder to write the checkpoint of `step` into before `commit`."""
        folder = self.folder / f"{_STAGING}{step:08d}"
        with one_line_errors(folder):
            if folder.exists():
                self._discard(folder)
            folder.mkdir(parents=True)
        return folder

    def commit(
        self, staging: str | os.PathLike[str], step: int, keep: Collection[int], needed: Mapping[str, Any]
    ) -> Path:
        """The committed checkpoint, which `staging` becomes; older ones not in `keep` (steps) are removed.

        `needed`: what it needs outside of it, kept in it as `NEEDED`; nothing here looks at it.
        `staging` must lie on the same file system. A checkpoint of the same step is replaced. Raises
        SpectraError when the disk is full.
        """
        source, target = Path(staging), self.path(step)
        # A folder cannot be renamed over a full one: the earlier one steps aside, and `clean` knows its name.
        aside = self.folder / f"{_REPLACED}{target.name}"
        with one_line_errors(target):
            _seal(source, step, needed)
            self.folder.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(aside)
            source.rename(target)
            fsync(self.folder)
            if aside.exists():
                self._discard(aside)
            for older, path in self._named().items():
                if older < step and older not in keep:
                    self._discard(path)
        return target

    def complete(self) -> list[Path]:
        """The committed checkpoints, newest first; their content is not verified here."""
        newest_first = [path for _, path in sorted(self._named().items(), reverse=True)]
        with told_unreadable():
            return [path for path in newest_first if (path / MANIFEST).is_file()]

    def latest(self, problem_of: Callable[[Path], str | None] | None = None) -> Path | None:
        """The newest checkpoint without a problem, or None; a warning names each one passed over, and why.

        `problem_of` gives a checkpoint's problem in words; left out, it is whether its files match its manifest.
        Raises SpectraError for one that this user may not read: nothing can be said of it.
        """
        newest_first = [path for _, path in sorted(self._named().items(), reverse=True)]
        for path, older in zip(newest_first, [*newest_first, None][1:], strict=True):
            problem = (problem_of or damage)(path)
            if problem is None:
                return path
            then = f"{older.name}, the next older one, is looked at" if older else "there is no older one"
            log.warning("%s: %s; %s", path, problem, then)
        return None

    def any_left(self) -> bool:
        """Whether there is a checkpoint, be it damaged."""
        return bool(self._named())

    def clean(self) -> None:
        """Remove what killed writers left; a checkpoint that was being replaced gets its place back."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            home = self.folder / path.name.removeprefix(_REPLACED)
            if path.name.startswith(_REPLACED) and not home.exists():
                path.rename(home)
            elif path.name.startswith((_STAGING, _TRASH, _REPLACED)):
                shutil.rmtree(path)

    def _named(self) -> dict[int, Path]:
        with told_unreadable():
            if not self.folder.is_dir():
                return {}
            return {int(m[1]): path for path in self.folder.iterdir() if (m := _NAME.fullmatch(path.name))}

    def _discard(self, path: Path) -> None:
        """Remove a folder such that no half-removed one is ever seen under a checkpoint's name."""
        trash = self.folder / f"{_TRASH}{path.name}"
        if trash.exists():
            shutil.rmtree(trash)
        path.rename(trash)
        shutil.rmtree(trash)


def verify_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether the checkpoint's files are exactly those of its manifest: names, sizes and sha256.

    Raises SpectraError when a file is there and may not be read.
    """
    folder = Path(path)
    match = _NAME.fullmatch(folder.name)
    if match is None:
        return False
    try:
        with told_unreadable():
            return regular(folder / MANIFEST).read_bytes() == _manifest_text(folder, int(match[1])).encode("utf-8")
    except OSError:
        return False


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's own files, in words, or None."""
    return None if verify_checkpoint(checkpoint) else "damaged (files and manifest differ)"


def _seal(folder: Path, step: int, needed: Mapping[str, Any]) -> None:
    """Force every file of `folder` to the disk and write its manifest."""
    if not folder.is_dir():
        raise SpectraError(f"{folder}: no such folder to make a checkpoint of")
    (folder / NEEDED).write_text(json_text(needed), encoding="utf-8")
    for path in [folder, *folder.rglob("*")]:
        fsync(path)
    write_text(folder / MANIFEST, _manifest_text(folder, step))


def _manifest_text(folder: Path, step: int) -> str:
    """The manifest that belongs to the files in `folder` as they are now: same content, same text."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files = [
        {"name": name, "size": path.stat().st_size, "sha256": sha256_of(path)}
        for name, path in sorted(paths.items())
        if name != MANIFEST
    ]
    return json_text({"step": step, "files": files})
