"""Ways to damage one file or folder of a finished run, each drawn by a seeded generator."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

# Files that no table, figure or page takes a figure from: damage to them need not be named.
BESIDE = ("environment.json", "train.log", "progress.json", ".hydra", "analysis", ".lock", ".lock-holder.json")
# Keys of a summary that are no result and decide nothing.
WORDS = ("started", "finished", "error", "command", "timings")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, -5, 3, 500, 9, 1e308, -1e308, 10**400, float("nan"), float("inf"), "", "text", "=1+1",
    "<script>alert(1)</script>", "\ud800", "../../x", "x" * 100_000, [], {}, [1, "a", None], {"a": {"b": []}},
)  # fmt: skip
CONFIGURATIONS = (
    "", "[]", "1", "\t", "- x\n- y", "trainer: 5", "data: null", "a: &a [*a]", "!!python/object/apply:os.getcwd []",
    "{" * 5000,
)  # fmt: skip
TEXTS = ("null", "true", "[]", "{}", "0", '"text"', "1e999", "a: b", "<html>")


@dataclass(frozen=True)
class Damage:
    """`text`: what was done; `named`: whether the run's folder must be named for it."""

    text: str
    named: bool


def damage(rng: Random, run: Path, other: Path) -> Damage:
    """One random damage to the folder of a finished run; `other`: the folder of another finished run, left whole."""
    kind = rng.choices(list(_KINDS), weights=[weight for weight, _ in _KINDS.values()])[0]
    return _KINDS[kind][1](rng, run, other)


def content_damage(rng: Random, run: Path, other: Path) -> Damage | None:
    """One random damage to the content of what an unfinished run left, or None where there is nothing of the kind."""
    target = rng.choice(("history", "history", "snapshot", "snapshot", "checkpoint", "checkpoint", "file"))
    if target == "history" and rng.random() < 0.5 and (run / "history.parquet").is_file():
        return _history(rng, run, other)
    if target == "snapshot" and rng.random() < 0.5 and any((run / "routing").glob("*.npz")):
        return _snapshot(rng, run, other)
    below = {"history": "history.parquet", "snapshot": "routing/*", "checkpoint": "checkpoints/step-*/*", "file": "*"}
    paths = sorted(path for path in run.glob(below[target]) if path.is_file() and path.name not in BESIDE)
    if not paths:
        return None
    path, done = rng.choice(paths), rng.choice(_OF_CONTENT)
    done(rng, path, other / path.relative_to(run))
    return Damage(f"{path.relative_to(run)}: {done.__name__.strip('_')}", True)


def _file(rng: Random, run: Path, other: Path) -> Damage:
    """Any file of the run, damaged without regard to what it holds."""
    target = rng.choice(sorted(path for path in run.rglob("*") if path.is_file()))
    done = rng.choice(_BLIND)
    before, name = target.read_bytes(), target.relative_to(run)
    done(rng, target, other / name)
    same = done is not _unreadable and _is_file(target) and target.read_bytes() == before
    return Damage(f"{name}: {done.__name__.strip('_')}", not same and name.parts[0] not in BESIDE)


def _folder(rng: Random, run: Path, other: Path) -> Damage:
    """A folder of the run, or the run's own."""
    kept = [f"checkpoints/{path.name}" for path in (run / "checkpoints").iterdir()]
    name = rng.choice(["", "routing", "checkpoints", ".hydra", "analysis", *kept])
    done = rng.choice(_OF_FOLDER)
    done(rng, run / name, other / name)
    return Damage(f"{name or 'the run'}/: {done.__name__.strip('_')}", name.split("/")[0] not in BESIDE)


def _summary(rng: Random, run: Path, other: Path) -> Damage:
    """One value of the summary, anywhere in it."""
    path = run / "summary.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    place, text, changed = _change(rng, content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return Damage(f"summary.json: {text}", changed and place[0] not in WORDS)


def _config(rng: Random, run: Path, other: Path) -> Damage:
    """One value of the configuration, or all of it."""
    path = run / "config.yaml"
    if rng.random() < 0.5:
        text = rng.choice(CONFIGURATIONS)
        path.write_text(text, encoding="utf-8")
        return Damage(f"config.yaml: {text[:40]!r}", True)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    place, text, changed = _change(rng, content, [value for value in VALUES if value != "\ud800"])
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return Damage(f"config.yaml: {text}", changed)


def _history(rng: Random, run: Path, other: Path) -> Damage:
    """The history as a whole parquet file with other content."""
    path = run / "history.parquet"
    table = pq.ParquetFile(path).read()
    done = rng.choice(_OF_HISTORY)
    made = done(rng, table)
    pq.write_table(made, path)
    return Damage(f"history.parquet: {done.__name__.strip('_')}", not made.equals(table))


def _snapshot(rng: Random, run: Path, other: Path) -> Damage:
    """A routing snapshot as a whole npz file with other content."""
    path = rng.choice(sorted((run / "routing").glob("*.npz")))
    with np.load(path) as archive:
        arrays = dict(archive)
    name = rng.choice(sorted(arrays))
    done = rng.choice(_OF_ARRAY)
    changed = done(rng, arrays[name])
    same = changed is not None and changed.dtype == arrays[name].dtype and np.array_equal(changed, arrays[name])
    if changed is None:
        del arrays[name]
    else:
        arrays[name] = changed
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return Damage(f"{path.name}: {name}: {done.__name__.strip('_')}", not same)


def _checkpoint(rng: Random, run: Path, other: Path) -> Damage:
    """The description of the newest checkpoint's model."""
    path = sorted((run / "checkpoints").iterdir())[-1] / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if rng.random() < 0.3:
        content["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        text = "auto_map"
    else:
        _, text, _ = _change(rng, content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return Damage(f"{path.parent.name}/config.json: {text}", True)


def _change(rng: Random, content: Any, values: Any = VALUES) -> tuple[list[Any], str, bool]:
    """Change one value below `content`: the keys that lead to it, what was done in words, whether it differs."""
    place: list[Any] = []
    node = content
    while True:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        place.append(key)
        inner = node[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.1:
            break
        node = inner
    words = ".".join(map(str, place))
    draw = rng.random()
    if draw < 0.15:
        node.pop(key)
        return place, f"{words} gone", inner is not None
    if draw < 0.5 and isinstance(inner, (int, float)) and not isinstance(inner, bool):
        # An edit that keeps the value within reason.
        node[key] = inner + 1 if isinstance(inner, int) else inner * (1 + rng.choice((-1, 1)) * rng.uniform(1e-3, 0.2))
    else:
        node[key] = rng.choice(values)
    same = node[key] == inner and type(node[key]) is type(inner)
    return place, f"{words} = {str(node[key])[:40].encode('ascii', 'backslashreplace').decode()!r}", not same


def _is_file(path: Path) -> bool:
    # A link that leads to itself raises in `is_file` of some versions of Python.
    return not path.is_symlink() and path.is_file()


def _remove(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)


def _make_empty(rng: Random, path: Path, other: Path) -> None:
    path.write_bytes(b"")


def _truncate(rng: Random, path: Path, other: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) or 1)])


def _flip(rng: Random, path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def _noise(rng: Random, path: Path, other: Path) -> None:
    path.write_bytes(rng.randbytes(rng.choice((1, 100, 10_000))))


def _nest(rng: Random, path: Path, other: Path) -> None:
    path.write_text("[" * 200_000, encoding="utf-8")


def _other_words(rng: Random, path: Path, other: Path) -> None:
    path.write_text(rng.choice(TEXTS), encoding="utf-8")


def _of_another_run(rng: Random, path: Path, other: Path) -> None:
    if other.is_file():
        shutil.copyfile(other, path)


def _file_instead(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    path.write_text("text", encoding="utf-8")


def _link_to_itself(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    path.symlink_to(path.name)


def _link_to_nothing(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    path.symlink_to("nothing")


def _pipe(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    os.mkfifo(path)


def _unreadable(rng: Random, path: Path, other: Path) -> None:
    path.chmod(0)


def _empty_folder(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    path.mkdir()


def _folder_of_another_run(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    shutil.copytree(other, path) if other.is_dir() else path.mkdir()


def _link_to_another_run(rng: Random, path: Path, other: Path) -> None:
    _remove_any(path)
    path.symlink_to(other)


def _remove_any(path: Path) -> None:
    if path.is_symlink() or path.exists():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _half_the_rows(rng: Random, table: pa.Table) -> pa.Table:
    return table.slice(0, len(table) // 2)


def _no_rows(rng: Random, table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def _rows_twice(rng: Random, table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table])


def _a_column_less(rng: Random, table: pa.Table) -> pa.Table:
    return table.drop_columns([rng.choice(table.column_names)])


def _other_type(rng: Random, table: pa.Table) -> pa.Table:
    name = rng.choice(table.column_names)
    texts = pa.array([str(value) for value in table.column(name).to_pylist()])
    return table.set_column(table.column_names.index(name), name, texts)


def _value(rng: Random, table: pa.Table) -> pa.Table:
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


def _gone(rng: Random, array: np.ndarray) -> None:
    return None


def _one_layer(rng: Random, array: np.ndarray) -> np.ndarray:
    return array[:1] if array.ndim else array


def _a_half_less(rng: Random, array: np.ndarray) -> np.ndarray:
    return array[..., : array.shape[-1] // 2] if array.ndim else array


def _flat(rng: Random, array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def _negative(rng: Random, array: np.ndarray) -> np.ndarray:
    return -np.abs(array) - 1 if array.dtype.kind in "if" else array


def _huge(rng: Random, array: np.ndarray) -> np.ndarray:
    largest = {"i": lambda: np.iinfo(array.dtype).max, "f": lambda: 1e38}.get(array.dtype.kind)
    return np.full_like(array, largest()) if largest else array


def _not_numbers(rng: Random, array: np.ndarray) -> np.ndarray:
    return np.full(array.shape, np.nan)


def _texts(rng: Random, array: np.ndarray) -> np.ndarray:
    return array.astype(str)


def _objects(rng: Random, array: np.ndarray) -> np.ndarray:
    return np.array([{"a": 1}], dtype=object)


def _shuffled(rng: Random, array: np.ndarray) -> np.ndarray:
    return np.random.default_rng(rng.randrange(2**32)).permutation(array.reshape(-1)).reshape(array.shape)


_BLIND: tuple[Callable[[Random, Path, Path], None], ...] = (
    _remove, _make_empty, _truncate, _flip, _noise, _nest, _other_words, _of_another_run, _empty_folder,
    _link_to_itself, _link_to_nothing, _pipe, _unreadable,
)  # fmt: skip
_OF_CONTENT = (_remove, _make_empty, _truncate, _flip, _noise, _of_another_run)
_OF_FOLDER: tuple[Callable[[Random, Path, Path], None], ...] = (
    _file_instead, _link_to_itself, _link_to_nothing, _empty_folder, _folder_of_another_run, _link_to_another_run,
    _pipe,
)  # fmt: skip
_OF_HISTORY = (_half_the_rows, _no_rows, _rows_twice, _a_column_less, _other_type, _value, _value)
_OF_ARRAY = (
    _gone, _one_layer, _a_half_less, _flat, _negative, _huge, _not_numbers, _texts, _objects, _shuffled,
)  # fmt: skip
_KINDS: dict[str, tuple[int, Callable[[Random, Path, Path], Damage]]] = {
    "file": (5, _file),
    "folder": (2, _folder),
    "summary": (6, _summary),
    "config": (2, _config),
    "history": (2, _history),
    "snapshot": (2, _snapshot),
    "checkpoint": (1, _checkpoint),
}
