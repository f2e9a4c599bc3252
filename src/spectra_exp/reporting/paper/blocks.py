"""The runs of the paper's results as `paper/blocks.yaml` declares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from spectra_exp.config.tree import project_root, read_yaml
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.studies.definition import load_study, study_files
from spectra_exp.studies.expand import study_jobs

# What stands in the file for the folder of the real text.
TEXT = "TEXT"
TEXT_FILES = ("train.jsonl", "validation.jsonl")
# Keys of a run's line that say where it is made and where its data lie, not what it is.
OUTSIDE = ("data.train=", "data.validation=", "launch", "hydra", "outputs=", "trainer.cpu_threads=")

Line = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """One launch of a study: `typed`, what stands beside its name, with `TEXT` for the folder of the real text."""

    study: str
    typed: tuple[str, ...]

    @property
    def needs_text(self) -> bool:
        """Whether its runs are trained on the real text."""
        return any(f"={TEXT}/" in word for word in self.typed)

    @property
    def is_known(self) -> bool:
        """Whether the checkout has a file of the study."""
        return self.study in study_files()

    def typed_with(self, text: Path | None) -> list[str]:
        """The words with the folder of the real text in its place."""
        return [word.replace(f"={TEXT}/", f"={text}/") if text else word for word in self.typed]

    @cached_property
    def lines(self) -> list[list[str]]:
        """The overrides of each run; none of a study that there is no file of."""
        return study_jobs(load_study(self.study), list(self.typed)) if self.is_known else []

    @property
    def runs(self) -> list[Line]:
        """The same with those of `OUTSIDE` left out."""
        return [own_line(line) for line in self.lines]


@dataclass(frozen=True)
class Block:
    """Launches that are published together."""

    name: str
    title: str
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Chosen:
    """Runs of a block's study: those with the settings `run`."""

    block: str
    study: str
    run: frozenset[str]

    def lines(self, blocks: Sequence[Block]) -> list[Line]:
        """The overrides of each of them. Raises ConfigError where there is none."""
        launches = [launch for block in blocks if block.name == self.block for launch in block.launches]
        lines = {line: None for launch in launches if launch.study == self.study for line in launch.runs}
        found = [line for line in lines if self.run <= set(line)]
        if not found:
            words = " ".join(sorted(self.run))
            raise ConfigError(f"block {self.block}", f"no run of {self.study} has {words}", "see paper/blocks.yaml")
        return found


def own_line(line: list[str]) -> Line:
    """What tells a run from the other runs of its study, in a fixed order."""
    return tuple(sorted(word for word in line if not word.startswith(OUTSIDE)))


def paper_folder() -> Path:
    """Where the declared runs and the page's text lie."""
    return project_root() / "paper"


def read_blocks() -> list[Block]:
    """The declared blocks. Raises ConfigError that names the file and the bad part."""
    return read_declared("blocks", lambda content: [_block(n, content.get("with", [])) for n in content["blocks"]])


def read_declared(key: str, make: Callable[[dict[str, Any]], T]) -> T:
    """What `make` gives of the content of `paper/blocks.yaml`. Raises ConfigError, which names the file and the key."""
    path = paper_folder() / "blocks.yaml"
    content = read_yaml(path)
    try:
        return make(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: {key}", f"cannot be used ({type(error).__name__}: {error})") from error


def chosen_of(node: dict[str, Any]) -> Chosen:
    """The runs that a line of such a part names."""
    return Chosen(str(node["block"]), str(node["study"]), frozenset(node["run"]))


def text_words() -> tuple[str, ...]:
    """What stands beside a study that is trained on the real text, with `TEXT` for its folder."""
    return read_declared("text", lambda content: tuple(content["text"]))


def _block(node: dict[str, Any], common: list[str]) -> Block:
    shared = [*common, *node.get("with", [])]
    launches = (
        Launch(
            str(line["study"]),
            (*shared, *line.get("with", []), *([f"seed={line['seeds']}"] if "seeds" in line else [])),
        )
        for line in node["lines"]
    )
    return Block(str(node["name"]), str(node["title"]), tuple(launches))


def check_text(text: str | None) -> Path | None:
    """The folder of the real text. Raises ConfigError for one without its two files."""
    if text is None:
        return None
    folder = Path(text).expanduser().resolve()
    for name in TEXT_FILES:
        if not (folder / name).is_file():
            raise ConfigError("text", f"'{text}' has no {name}", f"name a folder with {' and '.join(TEXT_FILES)}")
    return folder
