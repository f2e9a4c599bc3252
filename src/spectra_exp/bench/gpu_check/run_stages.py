"""Stages that start runs of their own: the marked tests, a killed run, one of model=exp10, several on one GPU."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from spectra_exp.bench.gpu_check.stage import Finding, Setting
from spectra_exp.bench.gpu_check.training import LOSS_GAP
from spectra_exp.config.tree import project_root
from spectra_exp.runs.folder import RunFolder

SHARERS, SHARED_STEPS = 8, 100
RUN_LIMIT_S = 240
POLL_S = 0.1


def tests(setting: Setting) -> Iterator[Finding]:
    """The tests that are marked `gpu`."""
    files = [p for p in sorted((project_root() / "tests").rglob("test_*.py")) if "mark.gpu" in p.read_text("utf-8")]
    files = files[: setting.of_size(len(files), 1)]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=RUN_LIMIT_S)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    yield {
        "name": "pytest",
        "passed": (True if counts.get("passed") else None) if done.returncode == 0 else False,
        "counts": counts,
        "skipped": [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")],
        "failed": lines or done.stderr.splitlines()[-1:] if done.returncode else [],
    }


def resume(setting: Setting) -> Iterator[Finding]:
    """A run that is killed goes on from its checkpoint and ends where one that never stopped does."""
    number, every = setting.of_size(60, 6), setting.of_size(20, 2)
    lines = ["debug=smoke", f"trainer.max_steps={number}", f"trainer.checkpoint_every={every}"]
    forget(setting, "whole", "cut")
    whole = summary_of(setting, "whole", *lines)
    last = time.monotonic() + RUN_LIMIT_S
    with running(setting, "cut", *lines) as cut:
        while cut.poll() is None and not list((setting.folder / "cut").glob("runs/*/checkpoints/step-*")):
            if time.monotonic() > last:
                raise RuntimeError(f"no checkpoint within {RUN_LIMIT_S} s")
            time.sleep(POLL_S)
        killed = cut.poll() is None
    resumed = summary_of(setting, "cut", *lines)
    before, after = whole["metrics"]["val_loss"], resumed["metrics"]["val_loss"]
    gap = abs(before - after) / before
    yield {"name": "spectra", "passed": killed and gap <= LOSS_GAP, "killed": killed, "loss_gap": gap}


def exp10(setting: Setting) -> Iterator[Finding]:
    """One run of the temperature study's model, its time and memory."""
    lines = {
        "cuda": [
            "model=exp10",
            "router=temperature",
            "temperature=t1_0",
            "trainer.precision=bf16",
            "trainer.max_steps=50",
        ],
        "cpu": ["router=temperature", "temperature=t1_0", "debug=smoke", "trainer.max_steps=2"],
    }[setting.device]
    forget(setting, "exp10")
    began = time.perf_counter()
    summary = summary_of(setting, "exp10", *lines)
    yield {
        "name": "t1_0",
        "passed": True,
        "seconds": time.perf_counter() - began,
        "val_loss": summary["metrics"]["val_loss"],
        **{name: value for name, value in summary["timings"].items() if isinstance(value, (int, float))},
    }


def sharing(setting: Setting) -> Iterator[Finding]:
    """Tiny runs a minute on one device: one at a time, and several at once."""
    several, steps = setting.of_size(SHARERS, 2), setting.of_size(SHARED_STEPS, 2)
    minutes = {}
    for name, seeds, launcher in (
        ("alone", 1, ["launch=local"]),
        ("together", several, ["launch=parallel", f"launch.jobs={several}", f"launch.per_gpu={several}"]),
    ):
        forget(setting, f"sharing-{name}")
        began = time.perf_counter()
        lines = ["-m", "debug=smoke", f"trainer.max_steps={steps}", f"seed=0..{seeds - 1}", *launcher]
        summary_of(setting, f"sharing-{name}", *lines)
        minutes[name] = seeds / (time.perf_counter() - began) * 60
    yield {"name": "runs a minute", "passed": True, "at_once": several, "steps": steps, **minutes}


def forget(setting: Setting, *names: str) -> None:
    """Delete what an earlier check, perhaps of other code, ran under these names."""
    for name in names:
        shutil.rmtree(setting.folder / name / "runs", ignore_errors=True)


@contextmanager
def running(setting: Setting, name: str, *lines: str) -> Iterator[subprocess.Popen]:
    """A run in a process group of its own, its output in a log beside the findings; killed where the block ends."""
    outputs = setting.folder / name
    outputs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "spectra_exp", "run", *lines]
    command += [f"outputs={outputs}", f"trainer.device={setting.device}"]
    with (outputs / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        # Also what it has started.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def summary_of(setting: Setting, name: str, *lines: str) -> dict:
    """The summary of a run that is made now. Raises RuntimeError for one that did not complete in time."""
    outputs = setting.folder / name
    with running(setting, name, *lines) as process:
        status = process.wait(RUN_LIMIT_S)
    runs = sorted((outputs / "runs").iterdir()) if (outputs / "runs").is_dir() else []
    if status or not runs:
        raise RuntimeError((outputs / "log.txt").read_text("utf-8").strip().splitlines()[-1])
    return RunFolder(runs[0].parent, runs[0].name).read_summary()
