"""One live table of a launch on the terminal: runs done, running with their loss and CV, time left."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spectra_exp.studies.job import Job
from spectra_exp.studies.state import RunState, run_state
from spectra_exp.training.execute import QUIET

REFRESH_S = 1.0
# Rows of running and of failed runs that are shown; the rest is counted.
SHOWN = 8


class LiveView:
    """Shown while the block runs, where `console` (standard error unless given) is a terminal.

    It reads the runs' folders, so that it looks the same whichever launcher runs them.
    """

    def __init__(self, jobs: Sequence[Job], title: str, console: Console | None = None):
        self.jobs, self.title = jobs, title
        self.console = console or Console(stderr=True)
        options = jobs[0].experiment
        self.shown = options.launch.view and options.logger.progress and self.console.is_terminal
        self.started = time.monotonic()
        self._done_before = 0
        self._end = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveView:
        if self.shown:
            os.environ[QUIET] = "1"
            states = self.states()
            self._done_before = sum(state.state == "done" for state in states)
            self._live = Live(self.picture(states), console=self.console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
            self._thread = threading.Thread(target=self._refresh, args=(self._live,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is None or self._thread is None:
            return
        self._end.set()
        self._thread.join()
        self._live.update(self.picture(self.states()), refresh=True)
        self._live.stop()
        os.environ.pop(QUIET, None)

    def _refresh(self, live: Live) -> None:
        while not self._end.wait(REFRESH_S):
            live.update(self.picture(self.states()), refresh=True)

    def states(self) -> list[RunState]:
        """How each job stands, in the order of the launch."""
        return [run_state(Path(job.experiment.outputs) / "runs", job.run_id) for job in self.jobs]

    def picture(self, states: Sequence[RunState]) -> Group:
        """What the terminal shows for these states."""
        counts = Counter(state.state for state in states)
        words = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.most_common())
        left = self.seconds_left(states)
        tail = f"; about {duration(left)} left" if left is not None else ""
        head = Text(f"{self.title}: {len(states)} runs: {words}{tail}")
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        moving = [state for state in states if state.state == "running"]
        for state in moving[:SHOWN]:
            table.add_row(f"  {state.run_id}", *progress_words(state))
        if len(moving) > SHOWN:
            table.add_row(f"  and {len(moving) - SHOWN} more")
        failed = [state for state in states if state.error]
        errors = [Text(f"  {state.run_id}: {state.error}", style="red") for state in failed[:SHOWN]]
        return Group(head, table, *errors)

    def seconds_left(self, states: Sequence[RunState]) -> float | None:
        """By the pace of this launch, finished parts of runs included; None before there are any."""
        made = sum(_share(state) for state in states) - self._done_before
        remaining = sum(1 - _share(state) for state in states if state.state not in ("failed", "diverged", "not_run"))
        return (time.monotonic() - self.started) / made * remaining if made > 0 else None


def _share(state: RunState) -> float:
    """How much of a run is done, 0 to 1."""
    if state.state == "done":
        return 1.0
    progress = state.progress if state.state == "running" else None
    return progress.step / progress.max_steps if progress else 0.0


def progress_words(state: RunState) -> tuple[str, str, str, str]:
    """Steps, loss, CV and time left of a running run; empty where not known yet."""
    progress = state.progress
    if progress is None:
        return "starting", "", "", ""
    loss = f"loss {progress.loss:.3f}" if progress.loss is not None else ""
    cv = f"CV {progress.load_cv:.2f}" if progress.load_cv is not None else ""
    left = f"{duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    return f"{progress.step}/{progress.max_steps}", loss, cv, left


def duration(seconds: float) -> str:
    """A time in the two units that matter: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
