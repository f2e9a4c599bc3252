"""What a study is: a file in `sweeps/` or `ablations/` that names a set of configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from spectra_exp.config.tree import KINDS, project_root
from spectra_exp.config.typed import value_text
from spectra_exp.foundations.errors import ConfigError

# Pictures that the report draws and that are no figure of their own.
CHARTS = ("rows", "forest", "bars")


@dataclass(frozen=True)
class Block:
    """One product of configurations.

    settings: values that all of its points share, replaced by typed ones. points: values that belong together, one
    mapping a point. grid: values by key, crossed with each other and with the points. only: settings that must hold,
    or the block is left out.
    """

    settings: dict[str, str] = field(default_factory=dict)
    points: tuple[dict[str, str], ...] = ({},)
    grid: dict[str, tuple[str, ...]] = field(default_factory=dict)
    only: dict[str, str] = field(default_factory=dict)

    def axes(self) -> dict[str, list[str]]:
        """The values that the study itself varies, by key."""
        found = {key: list(values) for key, values in self.grid.items()}
        for point in self.points:
            for key, value in point.items():
                found.setdefault(key, []).append(value)
        return found

    def cells(self) -> Iterator[dict[str, str]]:
        """Every point of the grid with the settings, in the order of the file."""
        for point in self.points:
            for values in product(*self.grid.values()):
                yield {**self.settings, **point, **dict(zip(self.grid, values, strict=True))}


@dataclass(frozen=True)
class Study:
    """A study's file.

    `runs`: how many distinct configurations a seed has, by `osr` where that decides. `reference`: the row that others
    are tested against. `tables`, `pictures`: what is made of its runs, as `reporting/declared.py` reads it.
    """

    name: str
    kind: str
    question: str
    hypothesis: str
    runs: dict[str, int]
    command: str
    seeds: str
    blocks: tuple[Block, ...]
    title: str = ""
    reference: dict[str, Any] = field(default_factory=dict)
    tables: tuple[dict[str, Any], ...] = ()
    pictures: tuple[dict[str, Any], ...] = ()

    @property
    def choice(self) -> str:
        """What chooses it on the command line."""
        return f"{self.kind}={self.name}"


def study_files() -> dict[str, Path]:
    """The file of each study, by name, sweeps first."""
    return {path.stem: path for kind in KINDS for path in sorted((project_root() / kind).glob("*.yaml"))}


def load_study(name: str, kind: str | None = None) -> Study:
    """The study of that name. Raises ConfigError for one that does not exist or whose file cannot be used."""
    files = {n: p for n, p in study_files().items() if kind in (None, p.parent.name)}
    if name not in files:
        raise ConfigError.unknown(kind or "study", name, files)
    return read_study(files[name])


def read_study(path: Path) -> Study:
    """The study that a file describes. Raises ConfigError that names the file and the bad key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(str(path), " ".join(str(error).split())) from error
    known = {f.name: f for f in fields(Study) if f.name not in ("name", "kind")}
    needed = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    needed -= {"command"}
    _check_keys(path, "", content, set(known), required=needed)
    blocks = tuple(_block(path, index, node) for index, node in enumerate(content["blocks"]))
    runs = {str(key): int(count) for key, count in content["runs"].items()}
    return Study(
        path.stem, path.parent.name, content["question"], content["hypothesis"], runs,
        content.get("command", f"make study STUDY={path.stem}"), str(content["seeds"]), blocks,
        content.get("title", path.stem), content.get("reference", {}),
        *(_nodes(path, content, key) for key in ("tables", "pictures")),
    )  # fmt: skip


def _nodes(path: Path, content: dict[str, Any], key: str) -> tuple[dict[str, Any], ...]:
    nodes = content.get(key, [])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ConfigError(f"{path} {key}", "a list of mappings is expected")
    return tuple(nodes)


def _block(path: Path, index: int, node: Any) -> Block:
    where = f"blocks[{index}]"
    _check_keys(path, where, node, {f.name for f in fields(Block)})
    points = tuple(_texts(point) for point in node.get("points", [{}]))
    grid = {key: tuple(value_text(value) for value in values) for key, values in node.get("grid", {}).items()}
    return Block(_texts(node.get("settings", {})), points, grid, _texts(node.get("only", {})))


def _check_keys(path: Path, where: str, node: Any, known: set[str], required: set[str] = frozenset()) -> None:
    if not isinstance(node, dict):
        raise ConfigError(f"{path} {where}".strip(), "a mapping is expected")
    for key in node:
        if key not in known:
            raise ConfigError.unknown(f"{path} {where}".strip(), str(key), known)
    if missing := sorted(required - set(node)):
        raise ConfigError(str(path), f"without {', '.join(missing)}")


def _texts(node: dict[str, Any]) -> dict[str, str]:
    return {str(key): value_text(value) for key, value in node.items()}
