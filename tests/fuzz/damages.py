"""Ways to damage one file or folder of a finished run, each drawn by a seeded generator."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from damage_steps import OF_ARRAY, OF_CONTENT, OF_FILE, OF_FOLDER, OF_HISTORY, is_file, unreadable

# Files that no table, figure or page takes a figure from: damage to them need not be named.
BESIDE = ("environment.json", "train.log", "progress.json", ".hydra", "analysis", ".lock", ".lock-holder.json")
# Keys of a summary that are no result and decide nothing; one without a seal is one of earlier code.
WORDS = ("started", "finished", "error", "command", "timings", "seal")
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    -5,
    3,
    500,
    9,
    1e308,
    -1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "text",
    "=1+1",
    "<script>alert(1)</script>",
    "\ud800",
    "../../x",
    "x" * 100_000,
    [],
    {},
    [1, "a", None],
    {"a": {"b": []}},
)
CONFIGURATIONS = (
    "",
    "[]",
    "1",
    "\t",
    "- x\n- y",
    "trainer: 5",
    "data: null",
    "a: &a [*a]",
    "!!python/object/apply:os.getcwd []",
    "{" * 5000,
)


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
    if target in _WITHIN and rng.random() < 0.5:
        # An earlier damage may have left nothing that can be changed from within.
        with contextlib.suppress(OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile):
            return _WITHIN[target](rng, run, other)
    below = {"history": "history.parquet", "snapshot": "routing/*", "checkpoint": "checkpoints/step-*/*", "file": "*"}
    paths = sorted(path for path in run.glob(below[target]) if path.is_file() and path.name not in BESIDE)
    if not paths:
        return None
    path, done = rng.choice(paths), rng.choice(OF_CONTENT)
    done(rng, path, other / path.relative_to(run))
    return Damage(f"{path.relative_to(run)}: {done.__name__}", True)


def _file(rng: Random, run: Path, other: Path) -> Damage:
    """Any file of the run, damaged without regard to what it holds."""
    target = rng.choice(sorted(path for path in run.rglob("*") if path.is_file()))
    done = rng.choice(OF_FILE)
    before, name = target.read_bytes(), target.relative_to(run)
    done(rng, target, other / name)
    same = done is not unreadable and is_file(target) and target.read_bytes() == before
    return Damage(f"{name}: {done.__name__}", not same and name.parts[0] not in BESIDE)


def _folder(rng: Random, run: Path, other: Path) -> Damage:
    """A folder of the run, or the run's own."""
    kept = [f"checkpoints/{path.name}" for path in (run / "checkpoints").iterdir()]
    name = rng.choice(["", "routing", "checkpoints", ".hydra", "analysis", *kept])
    done = rng.choice(OF_FOLDER)
    done(rng, run / name, other / name)
    return Damage(f"{name or 'the run'}/: {done.__name__}", name.split("/")[0] not in BESIDE)


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
    done = rng.choice(OF_HISTORY)
    made = done(rng, table)
    pq.write_table(made, path)
    return Damage(f"history.parquet: {done.__name__}", not made.equals(table))


def _snapshot(rng: Random, run: Path, other: Path) -> Damage:
    """A routing snapshot as a whole npz file with other content."""
    path = rng.choice(sorted((run / "routing").glob("*.npz")))
    with np.load(path) as archive:
        arrays = dict(archive)
    name = rng.choice(sorted(arrays))
    done = rng.choice(OF_ARRAY)
    changed = done(rng, arrays[name])
    same = changed is not None and changed.dtype == arrays[name].dtype and np.array_equal(changed, arrays[name])
    if changed is None:
        del arrays[name]
    else:
        arrays[name] = changed
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return Damage(f"{path.name}: {name}: {done.__name__}", not same)


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


_KINDS: dict[str, tuple[int, Callable[[Random, Path, Path], Damage]]] = {
    "file": (5, _file),
    "folder": (2, _folder),
    "summary": (6, _summary),
    "config": (2, _config),
    "history": (2, _history),
    "snapshot": (2, _snapshot),
    "checkpoint": (1, _checkpoint),
}
_WITHIN = {"history": _history, "snapshot": _snapshot}
