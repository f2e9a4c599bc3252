"""How the run of a folder stands, for whoever looks at it from outside."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.lock import holder_alive
from spectra_exp.runs.progress import Progress, read_progress

# Every state, in the order of the columns of `status`. done: completed; interrupted: stopped or killed, to be resumed.
STATES = ("done", "running", "interrupted", "failed", "diverged", "not_run", "waiting", "missing")
_OF_STATUS = {
    "completed": "done",
    "diverged": "diverged",
    "not_run": "not_run",
    "failed": "failed",
    "stopped": "interrupted",
    "unfinished": "interrupted",
    "running": "running",
    "missing": "missing",
}


@dataclass(frozen=True)
class RunState:
    """`state`: one of STATES; `progress` of a run not at its end; `error`: first line of what failed."""

    run_id: str | None
    state: str
    progress: Progress | None = None
    error: str | None = None


def run_state(runs: Path, run_id: str | None) -> RunState:
    """The state of one run below the folder of all runs; a run that is not known yet is `waiting`."""
    if run_id is None:
        return RunState(None, "waiting")
    folder = RunFolder(runs, run_id)
    if holder_alive(folder.path):
        return RunState(run_id, "running", read_progress(folder.path))
    state = _OF_STATUS[folder.status()]
    if state == "interrupted":
        return RunState(run_id, state, read_progress(folder.path))
    error = None
    if state in ("failed", "diverged", "not_run"):
        error = next(iter(str(folder.read_summary().get("error") or "").splitlines()), "no reason was kept")
    return RunState(run_id, state, error=error)


@dataclass(frozen=True)
class Speed:
    """Seconds that a step of a finished run took, evaluations and all included, and which run that was."""

    router: str
    model: str
    cell_id: str
    seconds_per_step: float


def measured_speeds(runs: Path) -> list[Speed]:
    """The speed of every completed run below the folder of all runs."""
    speeds = []
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        try:
            summary = RunFolder(runs, path.name).read_summary()
        except SpectraError:
            # Not a run, or not one yet.
            continue
        timed = summary.get("timings", {})
        if summary["status"] == "completed" and timed.get("session_steps"):
            per_step = timed["wall_s"] / timed["session_steps"]
            speeds.append(Speed(summary["router"], summary["model"], summary["cell_id"], per_step))
    return speeds


def expected_seconds(speeds: Iterable[Speed], cell_id: str | None, experiment: Any) -> float | None:
    """How long one run should take by the finished runs most like it; None when there is none.

    The same cell tells most, then the same router and model, then the same model.
    """
    choices, steps = experiment.choices, experiment.trainer.max_steps
    speeds = list(speeds)
    for alike in (
        [s for s in speeds if s.cell_id == cell_id],
        [s for s in speeds if (s.router, s.model) == (choices["router"], choices["model"])],
        [s for s in speeds if s.model == choices["model"]],
    ):
        if alike:
            return steps * statistics.median(s.seconds_per_step for s in alike)
    return None
