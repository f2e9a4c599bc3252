"""The live table of a launch: what runs, how far, what failed, how long still; and quiet where there is no terminal."""

from __future__ import annotations

import io
import os
import time

import pytest
from rich.console import Console
from study_cases import finish, hold_elsewhere, jobs_of

from spectra_exp.runs.progress import Progress, ProgressWriter
from spectra_exp.studies import view as view_module
from spectra_exp.studies.state import RunState
from spectra_exp.studies.view import SHOWN, LiveView, duration
from spectra_exp.training.execute import QUIET


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=160, highlight=False)


def text_of(view: LiveView, states) -> str:
    console = Console(width=160, highlight=False)
    with console.capture() as capture:
        console.print(view.picture(states))
    return capture.get()


def running(name: str, step: int, left: float | None = None) -> RunState:
    return RunState(name, "running", Progress(step, 100, 3.25, 0.5, left))


@pytest.fixture
def view(outputs) -> LiveView:
    return LiveView(jobs_of("seed=0"), "mine", terminal())


def test_runs_done_running_with_loss_and_cv_and_failed_with_their_error(view):
    states = [
        RunState("a", "done"),
        running("b", 40, 75.0),
        RunState("c", "running"),
        RunState("d", "not_run", None, "why"),
        RunState("e", "missing"),
    ]
    lines = [" ".join(line.split()) for line in text_of(view, states).splitlines()]
    assert lines[0].startswith("mine: 5 runs: 2 running, 1 done, 1 not run, 1 missing")
    assert lines[1:] == ["b 40/100 loss 3.250 CV 0.50 1 min 15 s left", "c starting", "d: why"]


def test_more_running_runs_than_fit_are_counted(view):
    text = text_of(view, [running(f"run-{i:02}", 1) for i in range(SHOWN + 3)])
    assert text.count("run-") == SHOWN and "and 3 more" in text


def test_the_time_left_is_by_this_launch_alone(view, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(view_module.time, "monotonic", lambda: now)
    view.started, view._done_before = now - 60, 2
    done = [RunState(str(i), "done") for i in range(3)]
    # One and a half runs made in a minute; half of one and one whole left, a failed one not counted.
    states = [*done, running("r", 50), RunState("m", "missing"), RunState("f", "failed", None, "e")]
    assert view.seconds_left(states) == pytest.approx(60 / 1.5 * 1.5)
    assert view.seconds_left([RunState(str(i), "done") for i in range(2)]) is None


@pytest.mark.parametrize(
    "seconds, words", [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (3599.7, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_it_follows_runs_of_other_processes_and_keeps_the_runs_quiet(outputs, monkeypatch):
    monkeypatch.setattr(view_module, "REFRESH_S", 0.05)
    jobs, console = jobs_of("seed=0", "seed=1"), terminal()
    finish(jobs[0])
    assert QUIET not in os.environ
    with LiveView(jobs, "mine", console), hold_elsewhere(jobs[1], 600) as holder:
        assert os.environ[QUIET] == "1"
        ProgressWriter(jobs[1].planned.folder.path, 10).update(4, {"loss": 2.5, "load_cv": 0.25})
        deadline = time.monotonic() + 30
        while "4/10" not in console.file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        holder.kill()
        holder.wait()
        finish(jobs[1], "failed")
    assert QUIET not in os.environ
    shown = console.file.getvalue()
    assert "loss 2.500" in shown and "CV 0.25" in shown
    last = shown[shown.rindex("mine: 2 runs") :]
    assert last.startswith("mine: 2 runs: 1 done, 1 failed") and f"{jobs[1].run_id}: made to be failed" in last


@pytest.mark.parametrize("off", ["", "launch.view=false", "logger.progress=false"])
def test_without_a_terminal_or_where_it_is_not_wanted_nothing_is_shown(outputs, off):
    console = terminal() if off else Console(file=io.StringIO(), width=160)
    with LiveView(jobs_of(f"{off} seed=0".strip()), "mine", console):
        assert QUIET not in os.environ
    assert console.file.getvalue() == ""


def test_a_launch_that_raises_leaves_the_terminal_free(outputs):
    console = terminal()
    with pytest.raises(KeyboardInterrupt), LiveView(jobs_of("seed=0"), "mine", console):
        raise KeyboardInterrupt
    assert QUIET not in os.environ and console.file.getvalue().rstrip("\n").endswith("\x1b[?25h")
