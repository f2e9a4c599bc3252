"""One GPU a process, tested with names of GPUs that no machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spectra_exp.foundations import devices
from spectra_exp.foundations.devices import (
    GPUS,
    VISIBLE,
    Gpu,
    hand_on,
    named_gpus,
    see_what_was_handed_on,
    visible_gpus,
)

UUIDS = ["GPU-aa11", "GPU-bb22", "GPU-bb33"]
# Claims one of the GPUs given, says which and what CUDA would see, and holds it until its input ends.
CLAIM = """
import logging, os, pathlib, sys
from spectra_exp.foundations.devices import Gpu, claim_gpu
logging.basicConfig()
gpus = [Gpu(str(i), f"fake-{i}") for i in range(int(sys.argv[1]))]
gpu = claim_gpu(gpus, pathlib.Path(sys.argv[2]), sharers=int(sys.argv[3]))
assert claim_gpu(gpus, pathlib.Path(sys.argv[2])) is gpu
print(gpu.key, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def claimer(folder: Path, count: int = 2, sharers: int = 1) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(count), str(folder), str(sharers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "visible, names",
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("2,0", ["2", "0"]),
        (" 1 , GPU-aa", ["1", "GPU-aa"]),
        # CUDA reads no further than the first name that is no GPU.
        ("0,-1,1", ["0"]),
        ("0,7,1", ["0"]),
        # Ambiguous.
        ("GPU-bb", []),
        ("MIG-5,1", ["MIG-5", "1"]),
    ],
)
def test_the_visible_gpus_are_those_that_cuda_would_see(visible, names):
    environment = {} if visible is None else {VISIBLE: visible}
    assert [gpu.name for gpu in visible_gpus(environment, lambda: UUIDS)] == names


def test_a_gpu_has_one_key_whatever_it_is_called():
    assert named_gpus(["1"], UUIDS)[0].key == named_gpus(["GPU-bb2"], UUIDS)[0].key == "GPU-bb22"


def test_workers_choose_among_the_launchs_gpus_whatever_their_launcher_shows(monkeypatch):
    monkeypatch.setenv(VISIBLE, "1,2")
    monkeypatch.setenv(GPUS, "")
    monkeypatch.delenv(GPUS)
    hand_on(visible_gpus(uuids=lambda: UUIDS))
    monkeypatch.setenv(VISIBLE, "")
    see_what_was_handed_on()
    assert os.environ[VISIBLE] == "1,2"
    assert [gpu.key for gpu in visible_gpus(uuids=lambda: UUIDS)] == ["GPU-bb22", "GPU-bb33"]
    hand_on([])
    assert GPUS not in os.environ


def test_without_a_gpu_nothing_is_claimed_or_hidden(monkeypatch, tmp_path):
    monkeypatch.delenv(VISIBLE, raising=False)
    assert devices.claim_gpu([], tmp_path) is None
    assert VISIBLE not in os.environ and not list(tmp_path.iterdir())


def test_a_process_that_is_told_to_gives_up_waiting(tmp_path):
    holder = claimer(tmp_path, 1)
    try:
        holder.stdout.readline()
        assert devices.claim_gpu([Gpu("0", "fake-0")], tmp_path, give_up=lambda: "SIGTERM") is None
    finally:
        holder.communicate()


def test_two_processes_never_have_one_gpu_and_a_killed_one_frees_its_own(tmp_path):
    holders = [claimer(tmp_path) for _ in range(2)]
    try:
        claimed = {holder.stdout.readline().strip(): holder for holder in holders}
        assert claimed.keys() == {"fake-0 0", "fake-1 1"}
        third = claimer(tmp_path)
        holders.append(third)
        assert "waiting for one of 2 GPUs" in third.stderr.readline()
        time.sleep(0.2)
        assert third.poll() is None
        claimed["fake-1 1"].kill()
        assert third.stdout.readline().strip() == "fake-1 1"
        assert "waiting" not in third.communicate()[1]
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_sharers_spread_over_gpus_and_keep_out_who_wants_one_alone(tmp_path):
    holders = []
    try:
        for expected in ("fake-0 0", "fake-1 1", "fake-0 0", "fake-1 1"):
            holders.append(claimer(tmp_path, sharers=2))
            assert holders[-1].stdout.readline().strip() == expected
        for sharers in (1, 2):
            holders.append(claimer(tmp_path, sharers=sharers))
            assert "waiting for one of 2 GPUs" in holders[-1].stderr.readline()
        holders[0].communicate()
        # The one that shares has the place; the other waits for a whole GPU.
        assert holders[5].stdout.readline().strip() == "fake-0 0"
        holders[1].communicate()
        holders[3].communicate()
        assert holders[4].stdout.readline().strip() == "fake-1 1"
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
