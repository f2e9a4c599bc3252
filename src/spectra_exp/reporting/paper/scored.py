"""The declared runs that are scored on downstream tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_exp.downstream.command import evaluate
from spectra_exp.downstream.options import EvaluateOptions
from spectra_exp.downstream.tasks import local_task
from spectra_exp.reporting.paper.blocks import Block, Chosen, chosen_of, read_declared
from spectra_exp.reporting.paper.progress import Known


@dataclass(frozen=True)
class Scored:
    """`tasks`: names of local tasks; `runs`: what is scored on each of them."""

    tasks: tuple[str, ...]
    runs: tuple[Chosen, ...]


def read_scored() -> Scored:
    """What `paper/blocks.yaml` declares. Raises ConfigError that names the file and the bad part."""

    def make(declared: dict[str, Any]) -> Scored:
        return Scored(tuple(declared["tasks"]), tuple(map(chosen_of, declared["runs"])))

    return read_declared("downstream", make, Scored((), ()))


def check_items(data: str | None) -> Path | None:
    """The folder of the tasks' items. Raises ConfigError for one without a declared task's file."""
    if data is None:
        return None
    folder = Path(data).expanduser().resolve()
    for name in read_scored().tasks:
        local_task(name, str(folder))
    return folder


def score_models(blocks: Sequence[Block], known: Known, data: Path | None) -> bool:
    """Score what is declared, was trained here and has no score yet, by the items in the folder `data`; whether there
    was any. Without a folder it says how many runs wait."""
    scored = read_scored()
    runs = {run.path: run for chosen in scored.runs for run in known.finished(chosen, blocks)}
    tasks = set(scored.tasks)
    left = [path for path, run in runs.items() if not tasks <= set(run.read_summary().get("downstream") or ())]
    if data is None:
        if left:
            print(f"{len(left)} runs wait for downstream scores; give downstream=FOLDER", file=sys.stderr)
        return False
    for path in left:
        words = {"outputs": str(path.parent.parent), "run": str(path), "tasks": ",".join(scored.tasks)}
        evaluate(EvaluateOptions(**words, data=str(data)))
    return bool(left)
