"""Files that are written whole or not at all: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from spectra_exp.foundations.errors import SpectraError

TEMPORARY_GLOB = ".*.tmp"
"""What the temporary files of this module are called; such a file was left by a killed writer."""

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_file_name(text: str) -> bool:
    """Whether a file or folder can be called so: no path, not hidden, and short enough for a prefix or suffix."""
    return re.fullmatch(r"[^./\\\0][^/\\\0]*", text) is not None and len(text.encode()) <= 200


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to; when the block ends it is renamed to `path`.

    The file is on the disk before the name points to it, so that a kill or a power cut leaves either the old
    file or the new one. When the block raises, the old file stays as it is and the temporary one is removed.
    Raises SpectraError when the file system refuses (disk full, quota, no permission).
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    with one_line_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            fsync(temporary)
            os.replace(temporary, target)
            fsync(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def one_line_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """A block in which a refusal of the file system becomes a SpectraError of one line: its file, or `path`."""
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else Path(path)
        place = path if fnmatch(named.name, TEMPORARY_GLOB) else named
        # numpy's own writing gives no number of an error.
        if error.errno in _DISK_FULL or (error.errno is None and "requested and" in str(error)):
            problem = "the disk is full; free space and run again (an earlier file is unchanged)"
        else:
            reason = f"{error.strerror or error}{_owner_in_words(place) if isinstance(error, PermissionError) else ''}"
            in_place = isinstance(error, (FileExistsError, IsADirectoryError, NotADirectoryError))
            fix = "move away what is in its place" if in_place else "check the folder and its permissions"
            problem = f"cannot be written ({reason}); {fix}"
        raise SpectraError(" ".join(f"{place}: {problem}".split())) from error


def short_path(path: str) -> str:
    """The last two parts of a path, none of them a home's: they tell a file from others, not where or whose it is."""
    inside = re.sub(r"^(~|/home/[^/]+|/Users/[^/]+|/root)/", "", path)
    return "/".join(PurePosixPath(inside).parts[-2:]).lstrip("/") if "/" in path else path


def regular(path: str | os.PathLike[str]) -> Path:
    """`path` of a file. Raises OSError for anything else, such as a named pipe: reading it would never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a file", os.fspath(path))
    return Path(path)


@contextmanager
def told_unreadable() -> Iterator[None]:
    """A block in which a file that this user may not read is a SpectraError of one line that names it."""
    try:
        yield
    except PermissionError as error:
        owner = _owner_in_words(error.filename)
        problem = f"may not be read by this user ({error.strerror}{owner}); change its permissions"
        raise SpectraError(f"{error.filename}: {problem}") from error


def _owner_in_words(path: str | os.PathLike[str]) -> str:
    """Whose `path`, or the nearest folder above it that is there, is, in words; empty where it is this user's."""
    place = Path(path)
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        owner = place.lstat().st_uid
        return "" if owner == os.geteuid() else f", {place} belongs to user {place.owner()}"
    except KeyError:
        return f", {place} belongs to user {owner}"
    except OSError:
        return ""


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Raises SpectraError when the file system refuses."""
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; line ends are written as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any, *, sort_keys: bool = False) -> None:
    """Write `value` as strict JSON to `path`, whole or not at all; see `json_text` for what is accepted."""
    write_text(path, json_text(value, sort_keys=sort_keys))


def json_text(value: Any, *, sort_keys: bool = False) -> str:
    """The strict JSON of `value`, indented, with a final line end.

    NaN and infinities become null (JSON has none). numpy and torch scalars and arrays become numbers and
    lists, paths become text. Raises TypeError for anything else that JSON has no form for.
    """
    plain = _plain(value)
    return json.dumps(plain, indent=1, sort_keys=sort_keys, allow_nan=False, ensure_ascii=False) + "\n"


def fsync(path: str | os.PathLike[str]) -> None:
    """Force the file or folder at `path` to the disk; a folder's entries are forced by syncing the folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # numpy and torch, scalars and arrays alike, without importing either.
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist())
    raise TypeError(f"JSON has no form for a {type(value).__name__}")
