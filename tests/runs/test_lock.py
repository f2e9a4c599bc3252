from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from joblib import Parallel, delayed

from spectra_exp.foundations.errors import RunInUse
from spectra_exp.foundations.files import write_text
from spectra_exp.runs.lock import HOLDER_NAME, LOCK_NAME, RunLock, holder_alive

_HOLD = """
import sys, time
from spectra_exp.runs.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_at_once_and_named_until_it_is_killed(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    try:
        begun = time.monotonic()
        with pytest.raises(RunInUse) as caught, RunLock(tmp_path):
            pass
        assert time.monotonic() - begun < 1.0
        assert f"process {process.pid} on " in str(caught.value) and " since 20" in str(caught.value)
        assert holder_alive(tmp_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / HOLDER_NAME).exists()  # it had no chance to tidy up
    assert not holder_alive(tmp_path)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / HOLDER_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / HOLDER_NAME).exists()


def test_the_same_thread_and_another_thread_are_refused(tmp_path: Path) -> None:
    refused: list[bool] = []

    def attempt() -> None:
        try:
            with RunLock(tmp_path):
                refused.append(False)
        except RunInUse:
            refused.append(True)

    with RunLock(tmp_path) as lock:
        assert lock.held
        attempt()
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        with pytest.raises(RunInUse):
            lock.acquire()
        assert lock.held
    attempt()
    assert refused == [True, True, False]


def test_a_timeout_waits_for_the_holder(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    timer = threading.Timer(0.2, lock.release)
    timer.start()
    with RunLock(tmp_path, timeout=10.0) as second:
        assert second.held
    timer.join()


def test_the_lock_is_freed_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        raise ZeroDivisionError
    with RunLock(tmp_path):
        pass


def _add_one(lock: RunLock, counter: Path) -> None:
    """A read, a pause and a write: two at a time lose counts."""
    with lock:
        value = int(counter.read_text())
        time.sleep(0.005)
        write_text(counter, str(value + 1))


class _NoLock(RunLock):
    def acquire(self) -> None:
        pass


def _count(kind: type[RunLock], folder: Path, backend: str) -> int:
    counter = folder / "counter"
    counter.write_text("0")
    jobs = (delayed(_add_one)(kind(folder, timeout=30.0), counter) for _ in range(12))
    Parallel(n_jobs=3, backend=backend, batch_size=1)(jobs)
    return int(counter.read_text())


def test_jobs_of_a_pool_exclude_each_other(tmp_path: Path) -> None:
    assert _count(RunLock, tmp_path, "threading") == 12
    # Planted fault: without the lock the same jobs lose counts.
    assert _count(_NoLock, tmp_path, "threading") < 12


def test_jobs_of_a_process_pool_exclude_each_other(tmp_path: Path) -> None:
    assert _count(RunLock, tmp_path, "loky") == 12


@pytest.mark.parametrize("change", [{"host": "another"}, {"pid": 1}])
def test_a_free_lock_has_no_living_holder_whatever_its_file_says(tmp_path: Path, change: dict) -> None:
    process = _holder(tmp_path)
    left = json.loads((tmp_path / HOLDER_NAME).read_text()) | change
    (tmp_path / HOLDER_NAME).write_text(json.dumps(left))
    assert holder_alive(tmp_path)
    process.kill()
    process.wait()
    # A pid given out again after a reboot, or a container's new host name.
    assert not holder_alive(tmp_path)
    with RunLock(tmp_path):
        assert holder_alive(tmp_path)


def test_whoever_only_probes_the_lock_does_not_keep_a_run_out(tmp_path: Path) -> None:
    probe = os.open(tmp_path / LOCK_NAME, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(probe, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [probe]).start()
    with RunLock(tmp_path):
        assert holder_alive(tmp_path)
