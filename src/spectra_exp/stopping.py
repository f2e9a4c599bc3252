"""Being asked to stop, in this process and in the worker processes of a parallel multirun.

A signal only sets a flag: the run in progress finishes its step, writes a checkpoint and stops, and no further job
starts. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Names the process that launched the jobs, for its workers.
LAUNCHER = "SPECTRA_LAUNCHER_PID"
ORPHAN_CHECK_S = 1.0

_asked: str | None = None


def asked() -> str | None:
    """Name of the signal that asked this process to stop; None while none did."""
    return _asked


def ask(name: str | None) -> None:
    """Note that a stop was asked for; None forgets it."""
    global _asked
    _asked = name


def note(number: int, frame: Any) -> None:
    """The signal handler."""
    if number == signal.SIGINT and _asked == "SIGINT":
        raise KeyboardInterrupt
    ask(signal.Signals(number).name)


@contextmanager
def noting(handler: Any = note) -> Iterator[None]:
    """Take the signals over for the block; only a main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, handler) for s in SIGNALS}
    try:
        yield
    finally:
        for s, earlier in before.items():
            signal.signal(s, earlier)


@contextmanager
def launching() -> Iterator[None]:
    """For the process that launches jobs: a signal is noted and passed on to the workers, which stop cleanly."""
    os.environ[LAUNCHER] = str(os.getpid())

    def note_and_pass_on(number: int, frame: Any) -> None:
        note(number, frame)
        for pid in _workers():
            os.kill(pid, signal.SIGTERM)

    try:
        with noting(note_and_pass_on):
            yield
    finally:
        os.environ.pop(LAUNCHER, None)


def _workers() -> list[int]:
    """Worker processes below this one."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if any("loky" in word for word in child.cmdline()) and "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            # It ended between being listed and being looked at.
            continue
    return found


_prepared = False


def prepare_worker() -> None:
    """In a worker process, once: note signals between jobs too, and do not outlive the launcher."""
    global _prepared
    launcher = os.environ.get(LAUNCHER)
    if _prepared or launcher is None or int(launcher) == os.getpid():
        return
    _prepared = True
    for s in SIGNALS:
        signal.signal(s, note)
    threading.Thread(target=_end_with, args=(int(launcher),), daemon=True).start()


def _end_with(launcher: int) -> None:
    """Ask for a stop once the launcher is gone; with no job in progress, end."""
    # A worker is the launcher's own child, and gets another parent when that dies, also before it is reaped.
    while os.getppid() == launcher:
        time.sleep(ORPHAN_CHECK_S)
    ask("the launcher's end")
    while busy.locked():
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


# Held while a job runs in this process.
busy = threading.Lock()

