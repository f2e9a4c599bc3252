"""Starts the processes of one run that asks for several, watches them, and tells in one line how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from spectra_exp.config.typed import parse_overrides
from spectra_exp.foundations import stopping
from spectra_exp.foundations.files import write_json
from spectra_exp.runs.limits import memory_allowed_mb
from spectra_exp.runs.plan import Plan
from spectra_exp.runs.ranks import LOST, RENDEZVOUS, rank_summary
from spectra_exp.runs.summary import sealed
from spectra_exp.training.execute import QUIET, failure_line, mark_failed

POLL_S = 0.1
# What is left to the others when one process has failed, before they are killed.
GRACE_S = 20.0
# Groups that say how runs are spread; a process of a run is one run.
SPREADING = ("launch", "search")


def execute_in_processes(planned: Plan) -> str:
    """The status of a run made by `trainer.processes` processes, each of which calls `execute`.

    When one of them fails or is killed the others end too, and what happened is in the summary.
    """
    folder, count = planned.folder, planned.experiment.trainer.processes
    # Told once, before the processes start.
    folder.check()
    with tempfile.TemporaryDirectory(prefix="spectra-ranks-") as meeting:
        processes = [_start(planned, number, Path(meeting) / "store") for number in range(count)]
        try:
            first = _watch(processes)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
    if first is not None:
        _tell(planned, first, processes[first].returncode)
    for number in range(1, count):
        (folder.path / rank_summary(number)).unlink(missing_ok=True)
    return folder.status()


def _start(planned: Plan, number: int, store: Path) -> subprocess.Popen:
    """One process of the run; it ends after its step when this one is gone."""
    count = planned.experiment.trainer.processes
    variables = {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(planned.experiment.trainer.cpu_threads),
        RENDEZVOUS: str(store),
        stopping.LAUNCHER: f"{os.getpid()}:{psutil.Process().create_time()}",
    }
    parsed = parse_overrides(planned.experiment.overrides)
    lines = [str(o.input_line) for o in parsed if not o.key_or_group.startswith(("hydra", *SPREADING))]
    if planned.device == "cpu" and "trainer.memory_limit_mb" not in {o.key_or_group for o in parsed}:
        lines.append(f"trainer.memory_limit_mb={max(1, int(memory_allowed_mb(planned.experiment) / count))}")
    command = [sys.executable, "-P", "-m", "spectra_exp", "run", *lines]
    # The first one's line with the run's folder is this process's to print.
    return subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL)


def _watch(processes: list[subprocess.Popen]) -> int | None:
    """Wait until all have ended; the place of the first that failed, or None."""
    first, deadline, told = None, float("inf"), False
    while any(process.poll() is None for process in processes):
        time.sleep(POLL_S)
        failed = [number for number, process in enumerate(processes) if process.poll()]
        if failed and first is None:
            # A killed one is the cause where several ended within one look.
            first = min(failed, key=lambda number: processes[number].returncode >= 0)
            deadline = time.monotonic() + GRACE_S
        if stopping.asked() and not told:
            told = True
            _send(processes, signal.SIGTERM)
        if time.monotonic() > deadline:
            _send(processes, signal.SIGKILL)
    failed = [number for number, process in enumerate(processes) if process.returncode]
    return first if first is not None or not failed else failed[0]


def _send(processes: list[subprocess.Popen], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _tell(planned: Plan, first: int, code: int) -> None:
    """Put what happened into the summary where the first rank could not, and show it."""
    folder, count = planned.folder, planned.experiment.trainer.processes
    if code < 0:
        name = signal.Signals(-code).name
        ended = f"process {first} of {count} was ended by {name}; the same command goes on from the last checkpoint"
        mark_failed(planned, ended)
    elif first > 0 and folder.read_summary().get("error") == LOST:
        own: dict[str, Any] = json.loads((folder.path / rank_summary(first)).read_text(encoding="utf-8"))
        with folder.hold():
            told = own | {"error": f"process {first} of {count}: {own['error']}"}
            write_json(folder.summary, sealed(folder.path, told))
    if QUIET not in os.environ and folder.summary.exists() and folder.read_summary().get("error"):
        print(failure_line(folder.run_id, folder.read_summary()), file=sys.stderr)
