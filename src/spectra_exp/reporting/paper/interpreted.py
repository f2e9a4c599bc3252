"""The declared models that are looked into: what of `spectra-exp interpret` is published, a page and some pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import write_bytes
from spectra_exp.interpret.analysis import analyse
from spectra_exp.interpret.options import Options
from spectra_exp.interpret.results import PAGE, read_index
from spectra_exp.reporting.paper.blocks import Block, paper_folder
from spectra_exp.reporting.paper.progress import Known
from spectra_exp.runs.folder import RunFolder

FOLDER = "interpretation"


@dataclass(frozen=True)
class Interpreted:
    """One model: the run of a block's study with the settings `run`.

    `parts`: what is looked at; `pictures`: the name of the one that stands beside the page, by part.
    """

    name: str
    title: str
    block: str
    study: str
    run: frozenset[str]
    parts: tuple[str, ...]
    pictures: dict[str, str]

    def run_id(self, blocks: Sequence[Block], known: Known) -> str | None:
        """The run's id, None before it was launched. ConfigError where the settings name no run, or several."""
        launches = (launch for block in blocks if block.name == self.block for launch in block.launches)
        lines = {line for launch in launches if launch.study == self.study for line in launch.runs}
        found = [line for line in lines if self.run <= set(line)]
        if len(found) != 1:
            words = " ".join(sorted(self.run))
            raise ConfigError(f"interpreted.{self.name}", f"{len(found)} runs of {self.study} have {words}")
        return known.ids.get((self.study, found[0]))

    def files(self, folder: Path) -> list[Path]:
        """Its pictures in a published folder; none before it was looked into."""
        own = folder / FOLDER / self.name
        return [path for picture in self.pictures.values() if (path := own / f"{picture}.png").is_file()]


def read_interpreted() -> list[Interpreted]:
    """The models that `paper/blocks.yaml` declares, if any. Raises ConfigError that names the file and the bad part."""
    path = paper_folder() / "blocks.yaml"
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "interpreted" not in content:
            return []
        declared = content["interpreted"]
        parts, pictures = tuple(declared["parts"]), dict(declared["pictures"])
        return [
            Interpreted(**model | {"run": frozenset(model["run"])}, parts=parts, pictures=pictures)
            for model in declared["models"]
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(str(path), f"no list of interpreted models ({type(error).__name__}: {error})") from error


def interpret_models(blocks: Sequence[Block], known: Known, folder: Path) -> None:
    """Look into each declared model that was trained here, and publish its page and pictures in `folder`.

    A model that was looked into before, in all parts, is not looked into again.
    """
    if known.outputs is None:
        return
    for model in read_interpreted():
        run_id = model.run_id(blocks, known)
        run = None if run_id is None else RunFolder(known.outputs / "runs", run_id)
        if run is None or run.status() != "completed":
            continue
        index = read_index(run.analysis)
        if index is None or not set(model.parts) <= set(index["parts"]):
            print(f"looking into {model.title}", file=sys.stderr)
            analyse(str(run.path), Options(parts=model.parts), known.outputs, Console(stderr=True))
        pictures = [run.analysis / part / f"{picture}.png" for part, picture in model.pictures.items()]
        for path in (run.analysis / PAGE, *pictures):
            write_bytes(folder / FOLDER / model.name / path.name, path.read_bytes())
