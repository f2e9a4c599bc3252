"""The runs of one study, without running any: ids, overrides, states, and how long the rest should take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spectra_exp.studies.definition import Study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import Job, make_jobs
from spectra_exp.studies.ledger import Expected
from spectra_exp.studies.state import GOOD, RunState, expected_seconds, measured_speeds, run_state
from spectra_exp.studies.view import duration


@dataclass(frozen=True)
class ShownRun:
    """One run of a study. `seconds`: what is left of it by measured speed, None when nothing like it has run."""

    job: Job
    state: RunState
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for other programs."""
        found = {"state": self.state.state, "error": self.state.error, "seconds_left": self.seconds}
        return asdict(Expected.of(self.job)) | found


def shown_runs(study: Study, typed: list[str]) -> list[ShownRun]:
    """The runs that `typed` makes of the study. Raises ConfigError."""
    jobs = make_jobs(study_jobs(study, typed))
    runs = Path(jobs[0].experiment.outputs) / "runs"
    speeds = measured_speeds(runs)
    shown = []
    for job in jobs:
        state = run_state(runs, job.run_id)
        experiment = job.planned.experiment if job.planned else job.experiment
        whole = expected_seconds(speeds, job.cell_id, experiment)
        shown.append(ShownRun(job, state, _left(state, whole)))
    return shown


def _left(state: RunState, whole: float | None) -> float | None:
    if state.state in GOOD:
        return 0.0
    if whole is None:
        return None
    done = state.progress.step / state.progress.max_steps if state.progress else 0.0
    return (1 - done) * whole


def show_json(study: Study, shown: list[ShownRun]) -> dict[str, Any]:
    """The study and its runs as plain values."""
    return {
        "study": study.name,
        "question": study.question,
        "hypothesis": study.hypothesis,
        "seconds_left": total_seconds(shown),
        "runs": [run.as_json() for run in shown],
    }


def total_seconds(shown: list[ShownRun]) -> float | None:
    """Seconds that one job after another would take; None while a part is unknown."""
    parts = [run.seconds for run in shown if run.seconds is not None]
    return sum(parts) if len(parts) == len(shown) else None


def print_runs(console: Console, study: Study, shown: list[ShownRun]) -> None:
    """The runs as a table on `console`."""
    console.print(Text(f"{study.name}: {study.question}"))
    console.print(Text(f"hypothesis: {study.hypothesis}"))
    table = Table(box=box.SIMPLE)
    table.add_column("run", overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("time left", justify="right", no_wrap=True)
    table.add_column("overrides", overflow="fold")
    for run in shown:
        own = [o for o in run.job.overrides if not o.startswith(("study=", "seed="))]
        left = duration(run.seconds) if run.seconds else ""
        name = run.job.run_id or "(waits for others)"
        table.add_row(name, str(run.job.experiment.seed), run.state.state.replace("_", " "), left, " ".join(own))
    console.print(table)
    total = total_seconds(shown)
    words = "unknown: no run like some of these has finished" if total is None else duration(total)
    console.print(Text(f"{len(shown)} runs; left, one job at a time: {words}"))
