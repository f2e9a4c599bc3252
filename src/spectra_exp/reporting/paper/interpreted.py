"""The declared models that are looked into: what of `spectra-exp interpret` is published, a page and some pictures."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_bytes, write_json
from spectra_exp.interpret.analysis import analyse
from spectra_exp.interpret.options import Options
from spectra_exp.interpret.page import write_page
from spectra_exp.interpret.results import INDEX, read_index
from spectra_exp.reporting.paper.blocks import Block, Chosen, chosen_of, read_declared
from spectra_exp.reporting.paper.progress import Known

FOLDER = "interpretation"


@dataclass(frozen=True)
class Interpreted:
    """One model, that of the first of the chosen runs.

    `parts`: what is looked at; `pictures`: the name of the one that stands beside the page, by part.
    """

    name: str
    title: str
    chosen: Chosen
    parts: tuple[str, ...]
    pictures: dict[str, str]

    def files(self, folder: Path) -> list[Path]:
        """Its pictures in a published folder; none before it was looked into."""
        own = folder / FOLDER / self.name
        return [path for picture in self.pictures.values() if (path := own / f"{picture}.png").is_file()]


def read_interpreted() -> list[Interpreted]:
    """The models that `paper/blocks.yaml` declares, if any. Raises ConfigError that names the file and the bad part."""

    def make(content: dict[str, Any]) -> list[Interpreted]:
        if (declared := content.get("interpreted")) is None:
            return []
        shared = tuple(declared["parts"]), dict(declared["pictures"])
        return [Interpreted(m["name"], m["title"], chosen_of(m), *shared) for m in declared["models"]]

    return read_declared("interpreted", make)


def interpret_models(blocks: Sequence[Block], known: Known, folder: Path) -> None:
    """Look into each declared model that was trained here, and publish its page and pictures in `folder`.

    A model that was looked into before, in all parts, is not looked into again.
    """
    for model in read_interpreted():
        for run in known.finished(model.chosen, blocks)[:1]:
            index = read_index(run.analysis)
            if index is None or not set(model.parts) <= set(index["parts"]):
                print(f"looking into {model.title}", file=sys.stderr)
                analyse(str(run.path), Options(parts=model.parts), run.path.parent.parent, Console(stderr=True))
            _publish(model, run.analysis, folder / FOLDER / model.name)


def _publish(model: Interpreted, analysis: Path, to: Path) -> None:
    """Write the page and the pictures of the declared parts alone: others, made by hand, may print held-out text."""
    if (index := read_index(analysis)) is None:
        raise SpectraError(f"{analysis / INDEX}: it cannot be read")
    with tempfile.TemporaryDirectory() as made:
        parts = {name: index["parts"][name] for name in model.parts}
        write_json(Path(made) / INDEX, index | {"parts": parts})
        for name in parts:
            if (analysis / name).is_dir():
                shutil.copytree(analysis / name, Path(made) / name)
        page = write_page(Path(made))
        for path in (page, *(Path(made) / part / f"{picture}.png" for part, picture in model.pictures.items())):
            write_bytes(to / path.name, path.read_bytes())
