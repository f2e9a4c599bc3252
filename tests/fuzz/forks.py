"""Calls in forked children, which have every module loaded already: they start at once and may crash or be killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

# Exit status of a child whose call raised.
CRASHED = 70


# Linux's numbers: the header of a set of capabilities, and those by which root passes over a file's permissions.
_CAPABILITIES_VERSION, _PASS_OVER = 0x20080522, 1 << 1 | 1 << 2


def heed_permissions() -> None:
    """From now on this process minds the permissions of files, root's too: an unreadable file is unreadable."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for kind in range(3):
        sets[kind] &= ~_PASS_OVER
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class Child:
    """`call` in a child process and process group of its own; what it prints goes to the file `log`."""

    def __init__(self, call: Callable[[], int | None], log: Path):
        self.log = log
        self.started = time.monotonic()
        self._status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = CRASHED
            try:
                os.setpgid(0, 0)
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                os.dup2(output, 1)
                os.dup2(output, 2)
                # A test's own streams may lead elsewhere.
                sys.stdout = sys.stderr = os.fdopen(output, "w", 1, encoding="utf-8", errors="backslashreplace")
                heed_permissions()
                status = call() or 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def poll(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status

    def wait(self, seconds: float) -> int | None:
        """The same after at most `seconds`; None of one that did not end by itself, which is killed."""
        while self.poll() is None and time.monotonic() - self.started < seconds:
            time.sleep(0.005)
        if self.poll() is None:
            self.send(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._status = -signal.SIGKILL
            return None
        return self._status

    def send(self, number: int) -> None:
        """Send a signal to the child, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def text(self) -> str:
        """What it printed, on standard output and error."""
        return self.log.read_text(encoding="utf-8", errors="replace")
