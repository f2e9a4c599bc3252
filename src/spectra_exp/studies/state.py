"""How the run of a folder stands, for whoever looks at it from outside."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spectra_exp.runs.config_file import setting
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.lock import holder_alive
from spectra_exp.runs.progress import Progress, read_progress
from spectra_exp.runs.stored import StoredRun, stored_runs

# Every state, in the order of the columns of `status`. done: completed; interrupted: stopped or killed, to be resumed.
STATES = ("done", "running", "interrupted", "failed", "diverged", "not_run", "waiting", "missing")
# Those that leave nothing to do.
GOOD = ("done", "diverged", "not_run")
# What a folder's status is called here, where it has another name.
_OF_STATUS = {"completed": "done", "stopped": "interrupted", "unfinished": "interrupted"}


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
    status = folder.status()
    state = _OF_STATUS.get(status, status)
    if state == "interrupted":
        return RunState(run_id, state, read_progress(folder.path))
    error = None
    if state in ("failed", "diverged", "not_run"):
        error = next(iter(str(folder.read_summary().get("error") or "").splitlines()), "no reason was kept")
    return RunState(run_id, state, error=error)


def stored_state(stored: StoredRun) -> RunState:
    """The state of a run that was read already; an archive has none that still goes on."""
    if stored.path.is_dir():
        return run_state(stored.path.parent, stored.run_id)
    status = stored.summary["status"] if stored.summary else "missing"
    return RunState(stored.run_id, _OF_STATUS.get(status, status))


# What of a configuration decides how long a step takes, beside the router.
SIZES = (
    "trainer.batch_size",
    "trainer.accumulation",
    "trainer.precision",
    "data.sequence_length",
    "model.hidden_size",
    "model.num_layers",
    "model.num_experts",
    "model.top_k",
    "model.expert_size",
    "model.source",
)
# A run of less than this share of the steps wanted says little of a longer one: it is start and evaluations.
COMPARABLE = 0.1


@dataclass(frozen=True)
class Speed:
    """How long a finished run took, and which run that was.

    `step_s`: seconds of a step, by the median; `beside_s`: seconds of the whole run beside its `steps` (start,
    evaluations, checkpoints); `sizes`: its values of `SIZES`, None where they are not known.
    """

    router: str
    model: str
    cell_id: str
    steps: int
    step_s: float
    beside_s: float
    sizes: tuple[Any, ...] | None

    def seconds(self, steps: int) -> float:
        """What a run of so many steps would take; evaluations are at shares of the steps, so their number stays."""
        return steps * self.step_s + self.beside_s


def measured_speeds(runs: Path) -> list[Speed]:
    """The speed of every completed run below the folder of all runs."""
    return speeds_of(stored_runs(runs))


def speeds_of(runs: Iterable[StoredRun]) -> list[Speed]:
    """The speed of each completed run."""
    speeds = []
    for stored in runs:
        summary = stored.summary
        if summary is None or stored.refusal is not None:
            # Not a run, not one yet, or one whose figures cannot be.
            continue
        timed = summary.get("timings") or {}
        steps, wall = timed.get("session_steps"), timed.get("wall_s")
        if not steps or wall is None:
            continue
        step_s = min(timed.get("step_time_ms", math.inf) / 1000, wall / steps)
        sizes = None if stored.config is None else tuple(setting(stored.config, key) for key in SIZES)
        names = summary["router"], summary["model"], summary["cell_id"]
        speeds.append(Speed(*names, steps, step_s, wall - steps * step_s, sizes))
    return speeds


def expected_seconds(speeds: Iterable[Speed], cell_id: str | None, experiment: Any) -> float | None:
    """How long one run should take by the finished runs most like it; None when there is none of its sizes.

    The same cell tells most, then the same router, then another one. Of these the runs count that made at least a tenth
    of the steps, where there are any; shorter ones, whose steps are timed apart from their start, else.
    """
    router, steps = experiment.choices["router"], experiment.trainer.max_steps
    sizes = tuple(setting(asdict(experiment), key) for key in SIZES)
    alike = [s for s in speeds if s.sizes == sizes or s.cell_id == cell_id]
    groups = [[s for s in alike if s.cell_id == cell_id], [s for s in alike if s.router == router], alike]
    groups = [[s for s in group if s.steps >= COMPARABLE * steps] for group in groups] + groups
    found = next((group for group in groups if group), None)
    return None if found is None else statistics.median(s.seconds(steps) for s in found)
