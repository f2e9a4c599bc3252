"""From a name to the files that it means: one file, a folder of them, or a pattern such as `shards/*.parquet`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from spectra_exp.data.readers import COMPRESSED, KINDS, READERS, kind_of
from spectra_exp.foundations.errors import ConfigError, nearest

# Files and folders named like this, alone or numbered (`train-00000-of-00003`), lay a folder out by split.
_SPLIT = re.compile(r"(train|validation|valid|val|dev|test)([-_.]?\d.*)?")
_VALIDATION = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class Member:
    """A file, and the sub-folder it lies in, which is the domain of documents that name none."""

    path: Path
    folder: str | None = None


@dataclass(frozen=True)
class FileSet:
    """Files that are read as one, in order; `left_out` are those beside them that are not."""

    name: str
    members: tuple[Member, ...]
    left_out: tuple[Path, ...] = ()


def find_set(name: str, key: str, split: str) -> FileSet:
    """The files that `name` means for `split`, "train" or "validation". Raises ConfigError, which names `key`."""
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        return _in_folder(path, key, split)
    if os.path.exists(path):
        return FileSet(str(path), (Member(_readable(path, key)),))
    if glob.has_magic(name):
        return _by_pattern(path, key)
    _refuse_missing(path, key)


def validation_beside(name: str) -> FileSet | None:
    """The validation files of a folder whose training files are read, where it has some."""
    path = Path(os.path.expanduser(name))
    if not os.path.isdir(path):
        return None
    if _named(path, "train"):
        beside = _named(path, "validation")[:1]
        return FileSet(str(path), (Member(beside[0]),)) if beside else None
    by_split = _by_split(path, _walk(path, "data.train"))
    return _set(path, "data.train", by_split["validation"]) if by_split["train"] and by_split["validation"] else None


def _in_folder(path: Path, key: str, split: str) -> FileSet:
    """A folder's one file of the split's name; else all its files of the split; else, without splits, all its files."""
    named = _named(path, split)
    if len(named) > 1:
        found = " and ".join(p.name for p in named)
        raise ConfigError(key, f"a folder must hold one {split} file; {path} holds {found}", "name the one to read")
    files = _walk(path, key)
    if named:
        return FileSet(str(path), (Member(named[0]),), tuple(p for p in files if p not in named and kind_of(p)))
    by_split = _by_split(path, files)
    if split == "validation" and by_split["train"] and not by_split["validation"]:
        raise ConfigError(key, f"a folder must hold a {split} file ({KINDS}); {path} holds none")
    chosen = by_split.get(split) or files
    readable = [p for p in chosen if kind_of(p)]
    if not readable:
        raise ConfigError(key, f"{path} holds none of the kinds that are read", f"valid: {KINDS}")
    taken = set(readable)
    return _set(path, key, readable, (p for p in files if p not in taken))


def _by_pattern(pattern: Path, key: str) -> FileSet:
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    folders = [match for match in matches if match.is_dir()]
    files = _once([*filter(Path.is_file, matches), *(path for folder in folders for path in _walk(folder, key))])
    if not files:
        raise ConfigError(key, f"no file matches {pattern}", "check the pattern")
    readable = [p for p in files if kind_of(p)]
    if not readable:
        _refuse_kind(files[0], key)
    parts = pattern.parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return _set(Path(*parts[:fixed]), key, readable, (p for p in files if not kind_of(p)), str(pattern))


def _set(root: Path, key: str, files: list[Path], left_out: Iterable[Path] = (), name: str = "") -> FileSet:
    """The files below `root`, each with its sub-folder. Raises ConfigError for one name in two kinds."""
    seen: dict[Path, Path] = {}
    for path in files:
        first = seen.setdefault(_bare(path), path)
        if first != path:
            raise ConfigError(
                key,
                f"{first.name} and {path.name} of {path.parent} have one name, as copies in two kinds have",
                f"name those to read by a pattern, such as '{root}/*{kind_of(path)}'",
            )
    members = tuple(Member(path, _sub_folder(path.relative_to(root))) for path in files)
    return FileSet(name or str(root), members, tuple(left_out))


def _walk(root: Path, key: str) -> list[Path]:
    """The regular files below a folder in order; hidden ones are passed over."""

    def refuse(error: OSError) -> NoReturn:
        raise ConfigError(key, f"{error.filename} cannot be read ({error.strerror})") from None

    found = []
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in names if not name.startswith(".") and (path := Path(folder, name)).is_file()]
    return _once(found)


def _once(files: Iterable[Path]) -> list[Path]:
    """The files in order, each under one name: links to another of them would give its documents twice."""
    plainest_first = sorted(files, key=lambda path: (path.is_symlink(), len(path.parts), path))
    return sorted({path.resolve(): path for path in reversed(plainest_first)}.values())


def _named(folder: Path, stem: str) -> list[Path]:
    return [path for suffix in sorted(READERS) if (path := folder / f"{stem}{suffix}").is_file()]


def _by_split(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {"train": [], "validation": []}
    for path in files:
        split = _split_of(path.relative_to(root)) if kind_of(path) else None
        if split == "train" or split in _VALIDATION:
            found["train" if split == "train" else "validation"].append(path)
    return found


def _split_of(path: Path) -> str | None:
    """The split that a folder of the path, or else the file, is named after."""
    for part in (*path.parts[:-1], path.name.partition(".")[0]):
        if match := _SPLIT.fullmatch(part.lower()):
            return match[1]
    return None


def _sub_folder(path: Path) -> str | None:
    """The first folder of the path that no split is named after; "value" of one named "column=value"."""
    names = [part for part in path.parts[:-1] if not _SPLIT.fullmatch(part.lower())]
    return names[0].rpartition("=")[2] if names else None


def _bare(path: Path) -> Path:
    """The path without what tells its kind."""
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return bare.with_suffix("")


def _readable(path: Path, key: str) -> Path:
    if not path.is_file():
        raise ConfigError(key, f"{path} is not a regular file", "name one")
    if kind_of(path) is None:
        _refuse_kind(path, key)
    return path


def _refuse_kind(path: Path, key: str) -> NoReturn:
    kind = "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSED else path.suffix
    raise ConfigError(key, f"files of kind '{kind or path.name}' are not read", f"valid: {KINDS}")


def _refuse_missing(path: Path, key: str) -> NoReturn:
    close = None
    if not os.path.isdir(path.parent):
        raise ConfigError(key, f"the folder {path.parent} does not exist", "check the path")
    with suppress(OSError):
        close = nearest(path.name, sorted(os.listdir(path.parent)))
    raise ConfigError(key, f"there is no file {path}", f"did you mean '{close}'?" if close else "check the path")
