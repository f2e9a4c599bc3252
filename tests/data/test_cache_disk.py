"""A file system that refuses while data is prepared: one line, and nothing half-made that a later try believes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_exp.data.cache import cached_folder
from spectra_exp.foundations.errors import SpectraError


def build(folder: Path) -> dict[str, Any]:
    np.save(folder / "a.npy", np.arange(10))
    return {"rows": 10}


def refuse(error: OSError):
    def builder(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        raise error

    return builder


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.npy"), "a.npy: the disk is full"),
        (OSError("1280 requested and 512 written"), "the disk is full"),  # numpy's, which has no number
        (PermissionError(errno.EACCES, "Permission denied", "a.npy"), "a.npy: cannot be written (Permission denied)"),
    ],
)
def test_a_refusal_is_one_line_and_the_next_try_builds(tmp_path: Path, error: OSError, said: str) -> None:
    with pytest.raises(SpectraError) as caught:
        cached_folder(tmp_path / "cache", "key", refuse(error))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("key*/*"))
    entry = cached_folder(tmp_path / "cache", "key", build)
    assert entry.facts == {"rows": 10} and np.load(entry.folder / "a.npy").sum() == 45


def test_a_cache_that_is_a_file_or_holds_one_in_an_entry_s_place(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(SpectraError, match="cache: cannot be written"):
        cached_folder(tmp_path / "cache", "key", build)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "key").write_text("precious")
    with pytest.raises(SpectraError, match="key"):
        cached_folder(tmp_path / "other", "key", build)
    assert (tmp_path / "other" / "key").read_text() == "precious"


def test_the_tokenizer_is_saved_as_its_own_save_would(tmp_path: Path) -> None:
    from spectra_exp.data.tokenizer import train_bpe, trained_tokenizer

    texts = ["the quick brown fox", "the lazy dog"] * 20
    train_bpe(texts, 300).save(str(tmp_path / "saved.json"))
    made = trained_tokenizer(texts, 300, tmp_path / "cache", print)
    assert made.path.read_bytes() == (tmp_path / "saved.json").read_bytes() and json.loads(made.path.read_text())
