"""What is done to one file, folder, table or array to damage it; each takes what it needs of chance from `rng`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa

TEXTS = ("null", "true", "[]", "{}", "0", '"text"', "1e999", "a: b", "<html>")


def is_file(path: Path) -> bool:
    # A link that leads to itself raises in `is_file` of some versions of Python.
    return not path.is_symlink() and path.is_file()


def remove(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)


def make_empty(rng: Random, path: Path, other: Path) -> None:
    path.write_bytes(b"")


def truncate(rng: Random, path: Path, other: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) or 1)])


def flip(rng: Random, path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def noise(rng: Random, path: Path, other: Path) -> None:
    path.write_bytes(rng.randbytes(rng.choice((1, 100, 10_000))))


def nest(rng: Random, path: Path, other: Path) -> None:
    path.write_text("[" * 200_000, encoding="utf-8")


def other_words(rng: Random, path: Path, other: Path) -> None:
    path.write_text(rng.choice(TEXTS), encoding="utf-8")


def of_another_run(rng: Random, path: Path, other: Path) -> None:
    if other.is_file():
        shutil.copyfile(other, path)


def file_instead(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    path.write_text("text", encoding="utf-8")


def link_to_itself(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    path.symlink_to(path.name)


def link_to_nothing(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    path.symlink_to("nothing")


def pipe(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    os.mkfifo(path)


def unreadable(rng: Random, path: Path, other: Path) -> None:
    path.chmod(0)


def empty_folder(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    path.mkdir()


def folder_of_another_run(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    shutil.copytree(other, path) if other.is_dir() else path.mkdir()


def link_to_another_run(rng: Random, path: Path, other: Path) -> None:
    remove_any(path)
    path.symlink_to(other)


def remove_any(path: Path) -> None:
    if path.is_symlink() or path.exists():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def half_the_rows(rng: Random, table: pa.Table) -> pa.Table:
    return table.slice(0, len(table) // 2)


def no_rows(rng: Random, table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def rows_twice(rng: Random, table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table])


def a_column_less(rng: Random, table: pa.Table) -> pa.Table:
    return table.drop_columns([rng.choice(table.column_names)])


def other_type(rng: Random, table: pa.Table) -> pa.Table:
    name = rng.choice(table.column_names)
    texts = pa.array([str(value) for value in table.column(name).to_pylist()])
    return table.set_column(table.column_names.index(name), name, texts)


def value(rng: Random, table: pa.Table) -> pa.Table:
    """One cell changed, within its column's type."""
    name = rng.choice(table.column_names)
    column = table.column(name).to_pylist()
    place = rng.randrange(len(column))
    choices = {
        "step": (-1, 10**18, column[place] if name != "step" else column[place] + 1),
        "fraction": (-1.0, 5.0, float("nan")),
        "value": (float("nan"), float("inf"), 1e308, -5.0, 0.5, None),
        "layer": ("999", "all", "", "x", None),
    }.get(name, ("", "other", "<script>", None))
    column[place] = rng.choice(choices)
    return table.set_column(table.column_names.index(name), name, pa.array(column, type=table.schema.field(name).type))


def gone(rng: Random, array: np.ndarray) -> None:
    return None


def one_layer(rng: Random, array: np.ndarray) -> np.ndarray:
    return array[:1] if array.ndim else array


def a_half_less(rng: Random, array: np.ndarray) -> np.ndarray:
    return array[..., : array.shape[-1] // 2] if array.ndim else array


def flat(rng: Random, array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def negative(rng: Random, array: np.ndarray) -> np.ndarray:
    return -np.abs(array) - 1 if array.dtype.kind in "if" else array


def huge(rng: Random, array: np.ndarray) -> np.ndarray:
    largest = {"i": lambda: np.iinfo(array.dtype).max, "f": lambda: 1e38}.get(array.dtype.kind)
    return np.full_like(array, largest()) if largest else array


def not_numbers(rng: Random, array: np.ndarray) -> np.ndarray:
    return np.full(array.shape, np.nan)


def texts(rng: Random, array: np.ndarray) -> np.ndarray:
    return array.astype(str)


def objects(rng: Random, array: np.ndarray) -> np.ndarray:
    return np.array([{"a": 1}], dtype=object)


def shuffled(rng: Random, array: np.ndarray) -> np.ndarray:
    return np.random.default_rng(rng.randrange(2**32)).permutation(array.reshape(-1)).reshape(array.shape)


OF_FILE: tuple[Callable[[Random, Path, Path], None], ...] = (
    remove,
    make_empty,
    truncate,
    flip,
    noise,
    nest,
    other_words,
    of_another_run,
    empty_folder,
    link_to_itself,
    link_to_nothing,
    pipe,
    unreadable,
)
OF_CONTENT = (remove, make_empty, truncate, flip, noise, of_another_run)
OF_FOLDER: tuple[Callable[[Random, Path, Path], None], ...] = (
    file_instead,
    link_to_itself,
    link_to_nothing,
    empty_folder,
    folder_of_another_run,
    link_to_another_run,
    pipe,
)
OF_HISTORY = (half_the_rows, no_rows, rows_twice, a_column_less, other_type, value, value)
OF_ARRAY = (
    gone,
    one_layer,
    a_half_less,
    flat,
    negative,
    huge,
    not_numbers,
    texts,
    objects,
    shuffled,
)
