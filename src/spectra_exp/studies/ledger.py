"""What was launched: one file a study and set of runs, so that its state can be told without composing anything."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from spectra_exp.config.tree import train_words
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import regular, write_json
from spectra_exp.runs.identity import digest
from spectra_exp.studies.decide import Design, without_seed
from spectra_exp.studies.definition import Study
from spectra_exp.studies.job import Job

SCHEMA = 1
# Keys that make finished runs again.
ANEW = ("force=", "refresh=")


@dataclass(frozen=True)
class Expected:
    """One run that a launch asked for; ids are None while they depend on other runs.

    `also`: the lines of overrides, beside `overrides`, that are the same run.
    """

    run_id: str | None
    cell_id: str | None
    seed: int
    overrides: list[str]
    also: list[list[str]]

    @classmethod
    def of(cls, job: Job) -> Expected:
        """The run of a launch's job."""
        return cls(job.run_id, job.cell_id, job.experiment.seed, job.overrides, job.also)


@dataclass(frozen=True)
class Launch:
    """A study as it was launched. `typed`: what was given beside its name; `launched`: when, last.

    `design`: how seeds are added until its comparisons are decided; None where they were given.
    """

    study: str
    typed: list[str]
    command: str
    launched: str
    runs: list[Expected]
    design: Design | None = None


def write_launch(study: Study, typed: list[str], jobs: Sequence[Job], design: Design | None = None) -> Path:
    """Write down what a launch expects; the same set of runs is the same file, or of a design the same cells."""
    # What goes on with the study must not begin it anew.
    again = [o for o in typed if not o.startswith(ANEW)]
    kept = [o for o in typed if not o.startswith(("launch", "hydra", "force", "refresh"))]
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "study": study.name,
        "typed": kept,
        "command": shlex.join([*train_words(), study.choice, *again]),
        "launched": datetime.now().astimezone().isoformat(timespec="seconds"),
        "runs": [asdict(Expected.of(job)) for job in jobs],
    }
    outputs = Path(jobs[0].experiment.outputs)
    lines: Any = [[part for part in job.overrides if not part.startswith(ANEW)] for job in jobs]
    if design is not None:
        content["design"] = asdict(design)
        lines = [content["design"], sorted({without_seed(line) for line in lines})]
    path = outputs / "studies" / f"{study.name}-{digest(lines)}.json"
    write_json(path, content)
    return path


def read_launches(outputs: Path) -> tuple[list[Launch], dict[str, str]]:
    """What was launched, oldest first, and why each file that cannot be used is left out."""
    launches, skipped = [], {}
    for path in sorted((outputs / "studies").glob("*.json")):
        try:
            launches.append(read_launch(path))
        except SpectraError as error:
            skipped[path.name] = str(error)
    return sorted(launches, key=lambda launch: launch.launched), skipped


def read_launch(path: Path) -> Launch:
    """The launch that a file holds. Raises SpectraError with the reason when it cannot be used."""
    try:
        return launch_of(json.loads(regular(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SpectraError(f"{path}: not a study's launch ({type(error).__name__}: {error})") from error
    except SpectraError as error:
        raise SpectraError(f"{path}: {error}") from error


def launch_of(content: Any) -> Launch:
    """The launch of a file's content. Raises SpectraError with the reason when it cannot be used."""
    try:
        if content["schema"] != SCHEMA:
            raise SpectraError(f"schema {content['schema']} is not the schema {SCHEMA} that this code reads")
        runs = [
            Expected(run["run_id"], run["cell_id"], int(run["seed"]), list(run["overrides"]), list(run["also"]))
            for run in content["runs"]
        ]
        texts = [content[key] for key in ("study", "command", "launched")]
        ids = [name for run in runs for name in (run.run_id, run.cell_id) if name is not None]
        if not all(isinstance(text, str) for text in (*texts, *ids, *content["typed"])):
            raise TypeError("a name is not text")
        if not all("=" in part for run in runs for line in (run.overrides, *run.also) for part in line):
            raise ValueError("an override without '='")
        design = None if content.get("design") is None else Design(**content["design"])
        return Launch(content["study"], list(content["typed"]), content["command"], content["launched"], runs, design)
    except (ValueError, KeyError, TypeError) as error:
        raise SpectraError(f"not a study's launch ({type(error).__name__}: {error})") from error
