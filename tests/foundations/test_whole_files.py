from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectra_exp.foundations import files as atomic
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import TEMPORARY_GLOB, atomic_path, json_text, write_bytes, write_json, write_text


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "summary.json"
    write_text(path, "old")
    monkeypatch.setattr(atomic.os, where, _full_disk)
    with pytest.raises(SpectraError) as caught:
        write_text(path, "new and much longer")
    assert "disk is full" in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_really_full_device_is_one_line(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    path = tmp_path / "history.parquet"
    path.write_text("old")
    with pytest.raises(SpectraError, match="disk is full"), atomic_path(path) as temporary:
        os.symlink("/dev/full", temporary)
        temporary.write_bytes(b"x" * 100_000)
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(TEMPORARY_GLOB))


def test_no_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(SpectraError, match="cannot be written"):
        write_text(tmp_path / "file" / "summary.json", "text")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_writer_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of it")
        raise error
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(TEMPORARY_GLOB))


def _is_whole_after_failing(write: Callable[[Path, list[str]], None], path: Path) -> bool:
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write(path, ["half", "boom"])
    return path.read_text() == "old"


def _parts(parts: list[str]):
    for part in parts:
        if part == "boom":
            raise ZeroDivisionError
        yield part


def test_planted_fault_writing_in_place_is_caught(tmp_path: Path) -> None:
    def in_place(path: Path, parts: list[str]) -> None:
        with open(path, "w") as file:
            file.writelines(_parts(parts))

    def whole(path: Path, parts: list[str]) -> None:
        with atomic_path(path) as temporary, open(temporary, "w") as file:
            file.writelines(_parts(parts))

    assert _is_whole_after_failing(whole, tmp_path / "good")
    assert not _is_whole_after_failing(in_place, tmp_path / "bad")


def test_bytes_are_written_as_they_are_and_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_bytes(path, b"\r\n\x00\xff")
    assert path.read_bytes() == b"\r\n\x00\xff"


_numbers = st.floats(allow_nan=True, allow_infinity=True)


_leaves = _numbers | st.integers() | st.text() | st.none() | st.booleans()


def _nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)


@given(st.recursive(_leaves, _nested))
def test_json_is_strict_and_only_non_finite_numbers_change(value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    def expected(v: object) -> object:
        if isinstance(v, float) and not math.isfinite(v):
            return None
        if isinstance(v, list):
            return [expected(e) for e in v]
        return {k: expected(e) for k, e in v.items()} if isinstance(v, dict) else v

    assert json.loads(json_text(value), parse_constant=refuse) == expected(value)


def test_json_takes_numpy_and_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {
        "np": np.float32(0.5),
        "int": np.int64(3),
        "bool": np.bool_(True),
        "array": np.array([[1.0, np.nan]]),
        "torch": torch.tensor(0.25, requires_grad=True),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "path": Path("a/b"),
        "tuple": (1, 2),
        7: "key",
    }
    write_json(path, value)
    assert json.loads(path.read_text()) == {
        "np": 0.5,
        "int": 3,
        "bool": True,
        "array": [[1.0, None]],
        "torch": 0.25,
        "half": [1.0, 1.0],
        "path": "a/b",
        "tuple": [1, 2],
        "7": "key",
    }


def test_json_refuses_what_it_cannot_say_and_sorts_on_request() -> None:
    with pytest.raises(TypeError, match="object"):
        json_text({"a": object()})
    assert list(json.loads(json_text({"b": 1, "a": 2}, sort_keys=True))) == ["a", "b"]
    assert list(json.loads(json_text({"b": 1, "a": 2}))) == ["b", "a"]
