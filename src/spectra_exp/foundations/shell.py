"""What a command and the shell tell each other: the words for help, and one exit status for each way to end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from spectra_exp.foundations.errors import ConfigError, SpectraError

# Words that ask for help in place of doing anything.
HELP = ("--help", "-h", "help")
DONE, FAILED, WRONG_INPUT = 0, 1, 2
# Of a process ended by SIGINT, and of one whose reader went away, as shells report them.
INTERRUPTED, PIPE_CLOSED = 130, 141


def exit_status(work: Callable[[], int], stopped: str = "stopped", told: bool = True) -> int:
    """The status that `work()` returns, or that of the error that it raises.

    2 for wrong input (ConfigError), 1 for what else did not come out (SpectraError), 130 when stopped. `stopped`: what
    is said then; `told=False`: nothing is said, because another process of the same run says it.
    """
    line = ""
    try:
        status = work()
        if sys.stdout is not None:
            # What is buffered would fail after this, where nobody catches it.
            sys.stdout.flush()
        return status
    except ConfigError as error:
        status, line = WRONG_INPUT, f"error: {error}"
    except SpectraError as error:
        status, line = FAILED, f"error: {error}"
    except KeyboardInterrupt:
        status, line = INTERRUPTED, stopped
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PIPE_CLOSED
    if told and line:
        print(line, file=sys.stderr)
    return status
