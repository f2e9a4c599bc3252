"""Work in code that hears no signal: its result, its error, and the end of the wait for it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from spectra_exp.foundations import stopping


@pytest.fixture
def forgotten():
    yield
    stopping.ask(None)


def deaf(seconds: float) -> str:
    """As compiled code that never looks whether a signal came: in this thread a handler would run only afterwards."""
    threading.Event().wait(seconds)
    return "done"


def test_results_and_errors_come_back():
    assert stopping.interruptibly(lambda: deaf(0.01)) == "done"
    with pytest.raises(ZeroDivisionError):
        stopping.interruptibly(lambda: 1 / 0)


def test_an_interrupt_ends_the_wait():
    started = time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        stopping.interruptibly(lambda: deaf(30))
    assert time.monotonic() - started < 5


def test_a_stop_that_is_only_noted_ends_it_too(forgotten):
    started = time.monotonic()
    with stopping.noting():
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(KeyboardInterrupt):
            stopping.interruptibly(lambda: deaf(30))
    assert time.monotonic() - started < 5
