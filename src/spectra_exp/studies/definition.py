"""What a study is: a file in `sweeps/`, `ablations/` or `replications/` that names a set of configurations."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from spectra_exp.config.presets import ablations
from spectra_exp.config.tree import KINDS, installed, named_files, project_root, read_yaml, train_words
from spectra_exp.config.typed import value_text
from spectra_exp.foundations.errors import ConfigError

# Of an axis `ablation` and of `runs`: what the files of conf/ablation say.
FROM_CONF = "from conf"
# Pictures that the report draws and that are no figure of their own.
CHARTS = ("rows", "forest", "bars")


@dataclass(frozen=True)
class Block:
    """One product of configurations.

    settings: values that all of its points share, replaced by typed ones. points: values that belong together, one
    mapping a point. grid: values by key, crossed with each other and with the points. only: settings that must hold,
    or the block is left out. In a file the values of `ablation` may be `from conf`: the ablations whose files name the
    study, in the order of their positions, in a block for each of the settings that some need (`only`).
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

    `runs`: how many distinct configurations a seed has, by `osr` where that decides; in a file `from conf` counts the
    ablations that are taken from there. `reference`: the row that others are tested against. `tables`, `pictures`: what
    is made of its runs, `contrasts`, its comparisons in table 13, and `published`, the effects that others found and it
    looks for again, as `reporting/declared.py` reads it. `command`: how `make` launches it, empty where it cannot.
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
    contrasts: tuple[dict[str, Any], ...] = ()
    published: tuple[dict[str, Any], ...] = ()

    @property
    def choice(self) -> str:
        """What chooses it on the command line."""
        return f"{self.kind}={self.name}"

    def varied(self) -> dict[str, list[str]]:
        """The values that any block varies, by key, each once."""
        found: dict[str, list[str]] = {}
        for block in self.blocks:
            for key, own in block.axes().items():
                found[key] = list(dict.fromkeys([*found.get(key, []), *own]))
        return found

    def asked(self, *settings: str) -> str:
        """The command that launches it with these settings, as a run has them: `osr=causal`, `seed=0..4`."""
        if not self.command:
            seeds = [] if any(word.startswith("seed=") for word in settings) else [f"seed={self.seeds}"]
            return shlex.join([*train_words(), self.choice, *seeds, *settings])
        words = [re.sub("^osr=", "OSR=", re.sub("^seed=", "SEEDS=", word)) for word in settings]
        return " ".join([self.command, shlex.join(words)]).strip()


def study_files() -> dict[str, Path]:
    """The file of each study, by name, sweeps first."""
    return {name: path for kind in KINDS for name, path in named_files(kind).items()}


def load_study(name: str, kind: str | None = None) -> Study:
    """The study of that name. Raises ConfigError for one that does not exist or whose file cannot be used."""
    files = {n: p for n, p in study_files().items() if kind in (None, p.parent.name)}
    if name not in files:
        raise ConfigError.unknown(kind or "study", name, files)
    return read_study(files[name])


def read_study(path: Path) -> Study:
    """The study that a file describes. Raises ConfigError that names the file and the bad key."""
    content = read_yaml(path)
    known = {f.name: f for f in fields(Study) if f.name not in ("name", "kind")}
    needed = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    needed -= {"command"}
    _check_keys(path, "", content, set(known), required=needed)
    blocks = tuple(block for index, node in enumerate(content["blocks"]) for block in _blocks(path, index, node))
    # `make` knows the checkout's own.
    by_make = not installed() and path.parent.parent == project_root()
    runs = content["runs"]
    runs = _runs_from_conf(path) if runs == FROM_CONF else {str(key): int(count) for key, count in runs.items()}
    return Study(
        path.stem,
        path.parent.name,
        content["question"],
        content["hypothesis"],
        runs,
        content.get("command", f"make study STUDY={path.stem}") if by_make else "",
        str(content["seeds"]),
        blocks,
        content.get("title", path.stem),
        content.get("reference", {}),
        *(_nodes(path, content, key) for key in ("tables", "pictures", "contrasts", "published")),
    )


def _nodes(path: Path, content: dict[str, Any], key: str) -> tuple[dict[str, Any], ...]:
    nodes = content.get(key, [])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ConfigError(f"{path} {key}", "a list of mappings is expected")
    return tuple(nodes)


def _blocks(path: Path, index: int, node: Any) -> Iterator[Block]:
    """The block as it stands; with ablations taken from conf/ one for each of the settings that these need."""
    where = f"blocks[{index}]"
    _check_keys(path, where, node, {f.name for f in fields(Block)})
    settings, only = _texts(node.get("settings", {})), _texts(node.get("only", {}))
    points = tuple(_texts(point) for point in node.get("points", [{}]))
    given = dict(node.get("grid", {}))
    for needed, names in _ablations_of(path).items() if given.get("ablation") == FROM_CONF else [((), None)]:
        values = given if names is None else given | {"ablation": names}
        grid = {key: tuple(value_text(value) for value in values) for key, values in values.items()}
        yield Block(settings, points, grid, only | dict(needed))


def _ablations_of(path: Path) -> dict[tuple[tuple[str, str], ...], list[str]]:
    """The ablations that name the study of this file, by the settings under which alone they stand there."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    known = study_files()
    for name, ablation in ablations().items():
        for study in ablation.studies:
            if study not in known:
                raise ConfigError.unknown(f"conf/ablation/{name}.yaml studies", study, known)
        if path.stem in ablation.studies:
            found.setdefault(tuple(_texts(ablation.only).items()), []).append(name)
    if not found:
        raise ConfigError(f"{path}", "no file of conf/ablation names this study", f"give one `studies: [{path.stem}]`")
    return found


def _runs_from_conf(path: Path) -> dict[str, int]:
    """How many distinct runs the ablations of a study are: always, and under each of the settings that some need."""
    count = {
        needed: sum(not ablations()[name].same_as for name in names) for needed, names in _ablations_of(path).items()
    }
    always = count.pop((), 0)
    return {"any": always} | {f"{key}={value}": always + own for ((key, value),), own in count.items()}


def _check_keys(path: Path, where: str, node: Any, known: set[str], required: AbstractSet[str] = frozenset()) -> None:
    if not isinstance(node, dict):
        raise ConfigError(f"{path} {where}".strip(), "a mapping is expected")
    for key in node:
        if key not in known:
            raise ConfigError.unknown(f"{path} {where}".strip(), str(key), known)
    if missing := sorted(required - set(node)):
        raise ConfigError(str(path), f"without {', '.join(missing)}")


def _texts(node: dict[str, Any]) -> dict[str, str]:
    return {str(key): value_text(value) for key, value in node.items()}
