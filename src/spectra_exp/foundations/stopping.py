"""Being asked to stop, in this process and in the worker processes of a parallel multirun.

A signal only sets a flag: the run in progress finishes its step, writes a checkpoint and stops, and no further job
starts. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Names the process that launched the jobs, for its workers: "pid:start time".
LAUNCHER = "SPECTRA_LAUNCHER"
# Names the file whose existence tells workers that no further job is to start.
STOP_FILE = "SPECTRA_STOP_FILE"
ORPHAN_CHECK_S = 1.0
# Two processes of one pid start at least so far apart; one process's start time, read twice, differs by less.
SAME_START_S = 5.0

# How soon work in another thread is left alone after a stop was asked for.
ASKED_CHECK_S = 0.2

Result = TypeVar("Result")

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
    os.environ[LAUNCHER] = f"{os.getpid()}:{psutil.Process().create_time()}"

    def note_and_pass_on(number: int, frame: Any) -> None:
        note(number, frame)
        for worker in workers():
            with suppress(psutil.NoSuchProcess):
                worker.terminate()

    try:
        with noting(note_and_pass_on):
            yield
    finally:
        os.environ.pop(LAUNCHER, None)


def workers() -> list[psutil.Process]:
    """Worker processes below this one, with a job or about to get one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        # It may end between being listed and being looked at.
        with suppress(psutil.Error):
            if _is_worker(child.cmdline()):
                found.append(child)
    return found


def _is_worker(words: Sequence[str]) -> bool:
    """Whether a command line is that of a worker process of joblib, submitit or ray."""
    if "submitit.core._submit" in words or words[:1] and words[0].startswith("ray::_run_job"):
        return True
    return any("loky" in word for word in words) and "resource_tracker" not in " ".join(words)


def interruptibly(work: Callable[[], Result]) -> Result:
    """What `work()` returns or raises; a signal ends the wait for it also while it is in code that hears none.

    The work itself goes on in its thread, at most until this process ends.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    ended: Future[Result] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([ended], timeout=ASKED_CHECK_S).done:
        if asked():
            raise KeyboardInterrupt
    return ended.result()


_prepared = False


def prepare_worker() -> None:
    """In a worker process, once: note signals between jobs too, and do not outlive the launcher.

    A job of SLURM does outlive it: its signals are submitit's, which has it queued again when its time is up.
    """
    global _prepared
    pid, _, started = os.environ.get(LAUNCHER, "").partition(":")
    if _prepared or not pid or int(pid) == os.getpid() or os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        return
    _prepared = True
    for s in SIGNALS:
        signal.signal(s, note)
    # They were held back while the worker could not yet note them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with, args=(int(pid), float(started)), daemon=True).start()


def _end_with(pid: int, started: float) -> None:
    """Ask for a stop once the launcher is gone; with no job in progress, end."""
    while _lives(pid, started):
        time.sleep(ORPHAN_CHECK_S)
    ask("the launcher's end")
    while busy.locked():
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


def _lives(pid: int, started: float) -> bool:
    """Whether the process of this pid and start time runs; one that nobody has waited for does not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < SAME_START_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Held while a job runs in this process.
busy = threading.Lock()


def told_to_stop() -> bool:
    """Whether this launch starts no further job, since one failed under launch.on_failure=stop."""
    path = os.environ.get(STOP_FILE)
    return path is not None and Path(path).exists()


def tell_to_stop() -> None:
    """Let no further job of this launch start."""
    path = os.environ.get(STOP_FILE)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
