"""The declared runs that are scored on downstream tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_exp.downstream.command import evaluate
from spectra_exp.downstream.options import EvaluateOptions
from spectra_exp.downstream.tasks import local_task
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.reporting.paper.blocks import Block, Chosen, chosen_of, read_declared
from spectra_exp.reporting.paper.progress import Known


@dataclass(frozen=True)
class Scored:
    """`tasks`: names of local tasks; `runs`: what is scored on each of them."""

    tasks: tuple[str, ...]
    runs: tuple[Chosen, ...]


def read_scored() -> Scored:
    """What `paper/blocks.yaml` declares, if anything. Raises ConfigError that names the file and the bad part."""

    def make(content: dict[str, Any]) -> Scored:
        declared = content.get("downstream") or {"tasks": (), "runs": ()}
        return Scored(tuple(declared["tasks"]), tuple(map(chosen_of, declared["runs"])))

    return read_declared("downstream", make)


def check_items(data: str | None) -> Path | None:
    """The folder of the tasks' items. Raises ConfigError for one without a declared task's file."""
    if data is None:
        return None
    folder = Path(data).expanduser().resolve()
    for name in read_scored().tasks:
        try:
            local_task(name, str(folder))
        except ConfigError as error:
            # It speaks of the key that `evaluate` has.
            raise ConfigError("downstream", error.problem, error.fix) from error
    return folder


def without_scores(blocks: Sequence[Block], known: Known) -> list[Path]:
    """The folders of the declared runs that have completed here and lack a declared task's score."""
    scored = read_scored()
    tasks = set(scored.tasks)
    runs = {run.path: run for chosen in scored.runs for run in known.finished(chosen, blocks)}
    return [path for path, run in runs.items() if not tasks <= set(run.read_summary().get("downstream") or ())]


def score_models(runs: Sequence[Path], items: Path) -> None:
    """Score the runs in these folders on the declared tasks, by the items in the folder `items`."""
    tasks = ",".join(read_scored().tasks)
    for path in runs:
        evaluate(EvaluateOptions(outputs=str(path.parent.parent), run=str(path), tasks=tasks, data=str(items)))
