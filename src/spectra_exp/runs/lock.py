"""One process at a time in a run's folder, by a lock that the operating system frees when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from types import TracebackType

import psutil
from filelock import FileLock, Timeout

from spectra_exp.foundations.errors import RunInUse
from spectra_exp.foundations.files import one_line_errors, regular, write_json

LOCK_NAME = ".lock"
HOLDER_NAME = ".lock-holder.json"
# `holder_alive` takes the lock for a moment to see whether it is free: a run waits for as long.
PROBE_S = 0.2


class RunLock:
    """A context manager that holds `folder` for this process, thread or job alone.

    Two holders exclude each other also between threads of one process. The lock is `flock` on `folder/.lock`:
    a SIGKILLed holder frees it; the file stays, since removing it would let two holders in. Processes that
    the holder forked (data loader workers) share it until they end.
    """

    def __init__(self, folder: str | os.PathLike[str], timeout: float = 0.0):
        """`timeout`: seconds to wait for another holder; 0 raises RunInUse within PROBE_S."""
        self.folder = Path(folder)
        self.timeout = timeout
        self._lock: FileLock | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the folder now."""
        return self._lock is not None

    def acquire(self) -> None:
        """Take the folder, made if missing; raises RunInUse, which names the holder, when another has it.

        Raises SpectraError where the folder or the lock in it is not to be written.
        """
        with one_line_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK_NAME, timeout=max(self.timeout, PROBE_S), thread_local=False)
        with one_line_errors(self.folder / LOCK_NAME):
            try:
                lock.acquire()
            except Timeout:
                raise RunInUse(
                    f"{self.folder}: in use by {_holder_text(self.folder)}; wait for it to end, or stop it"
                ) from None
        self._lock = lock
        try:
            write_json(self.folder / HOLDER_NAME, _this_process())
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Free the folder; nothing happens when it is not held."""
        if self._lock is None:
            return
        # Removed while the lock is still held, or the next holder's own file could go.
        lock, self._lock = self._lock, None
        try:
            with one_line_errors(self.folder / HOLDER_NAME):
                (self.folder / HOLDER_NAME).unlink(missing_ok=True)
        finally:
            lock.release()

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder_alive(folder: str | os.PathLike[str]) -> bool:
    """Whether the process that last took `folder` may still be running.

    The lock decides where it is free: its last holder died, whoever has its pid or host name now. A holder on another
    host whose lock is not free counts as alive: it cannot be seen from here.
    """
    holder = _read_holder(Path(folder))
    if holder is None or _is_free(Path(folder)):
        return False
    if holder["host"] != socket.gethostname():
        return True
    try:
        # A killed child that nobody has waited for is still listed.
        return psutil.Process(holder["pid"]).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_free(folder: Path) -> bool:
    """Whether the operating system holds no lock on the folder; asks by a shared one, given back at once."""
    try:
        file = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        # Never taken, or not to be looked at: then who wrote the holder's name is all there is to go by.
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(file)


def _this_process() -> dict[str, int | str]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _read_holder(folder: Path) -> dict[str, int | str] | None:
    try:
        holder = json.loads(regular(folder / HOLDER_NAME).read_text(encoding="utf-8"))
        return {"pid": int(holder["pid"]), "host": str(holder["host"]), "started": str(holder["started"])}
    except (OSError, ValueError, TypeError, KeyError):
        # The holder takes the lock a moment before it writes who it is.
        return None


def _holder_text(folder: Path) -> str:
    holder = _read_holder(folder)
    if holder is None:
        return "another process"
    return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
