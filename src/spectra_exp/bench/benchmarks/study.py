"""What a run of a study costs besides its training, and how fast studies go beside a shell loop over train.py."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.runs.summary import read_summary
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs

# Little training in each run: what is left is the cost of having a run at all.
SMALL = [
    "seed=0",
    "trainer.max_steps=5",
    "trainer.batch_size=4",
    "data.sequence_length=64",
    "data.train_words=20000",
    "data.validation_words=4000",
    "data.vocabulary_size=512",
    "data.evaluation_tokens=1024",
    "data.probe_tokens=256",
    "launch.view=false",
    "logger.progress=false",
]
STUDY, SLICED_BY = "b_sinkhorn", "osr.sinkhorn_epsilon"
SLICES, PARALLEL_SLICES = ("0.03", "0.2"), "0.03"
JOBS = 2
# Reads overrides line by line, and launches each line in this one process.
IN_PROCESS = """
import shlex, sys
from spectra_exp.studies.run import main
for line in sys.stdin:
    print("status", main(shlex.split(line)), flush=True)
"""


@benchmark
def study(outputs: Path) -> list[Figure]:
    """Half of sweep B's runs at 5 steps: overhead per run, speed against a shell loop, and with launch=parallel."""
    (outputs / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outputs / "bench") as scratch:
        folder = Path(scratch)
        # Tokenised before anything is timed.
        _shell_run(folder / "warm", SMALL)
        for name in ("study", "loop", "parallel"):
            (folder / name).mkdir()
            (folder / name / "cache").symlink_to(folder / "warm" / "cache")
        in_process, processor, loop = _interleaved(folder / "study", folder / "loop")
        runs = [read_summary(path) for path in (folder / "study").glob("runs/*/summary.json")]
        training = sum(run["timings"]["session_steps"] * run["timings"]["step_time_ms"] / 1000 for run in runs)
        parallel, made = _parallel(folder / "parallel")
    per_run = in_process / len(runs)
    return [
        Figure("study_overhead", (in_process - training) / len(runs), "s per run, not training", 5.0),
        Figure("study_seconds", per_run, "s per run"),
        # What a busy machine does not stretch.
        Figure("study_processor_seconds", processor / len(runs), "CPU s per run"),
        Figure("study_against_shell_loop", loop / per_run, "times as fast", 1.5, "higher"),
        Figure("study_parallel_against_shell_loop", loop * made / parallel, f"times, {JOBS} jobs", 2.0, "higher"),
    ]


def _interleaved(study_folder: Path, loop_folder: Path) -> tuple[float, float, float]:
    """Seconds of the whole study in one process, start-up included, wall and CPU; of one run of a loop over train.py.

    A run of the loop follows each slice of the study, so that a busy machine slows both.
    """
    lines = study_jobs(load_study(STUDY), SMALL)
    total, single = 0.0, []
    command = [sys.executable, "-P", "-c", IN_PROCESS]
    with psutil.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for index, value in enumerate(SLICES):
            started = time.perf_counter()
            _launch(process, [f"sweeps={STUDY}", f"{SLICED_BY}={value}", *SMALL, f"outputs={study_folder}"])
            total += time.perf_counter() - started
            started = time.perf_counter()
            _shell_run(loop_folder, lines[index * len(lines) // len(SLICES)])
            single.append(time.perf_counter() - started)
        used = process.cpu_times()
    return total, used.user + used.system, statistics.fmean(single)


def _launch(process: psutil.Popen, overrides: list[str]) -> None:
    """Have the process launch a line of overrides, and wait for the end."""
    process.stdin.write(" ".join(overrides) + "\n")
    process.stdin.flush()
    answers = (answer.strip() for answer in process.stdout if answer.startswith("status "))
    if next(answers, None) != "status 0":
        raise SpectraError("benchmark study: the launch failed as said above")


def _shell_run(folder: Path, overrides: list[str]) -> None:
    """One run of its own process, as a shell loop makes it."""
    _train_py([o for o in overrides if not o.startswith("launch.")], folder)


def _parallel(folder: Path) -> tuple[float, int]:
    """Seconds of a part of the study with launch=parallel, and how many runs that made."""
    started = time.perf_counter()
    sliced = [f"sweeps={STUDY}", f"{SLICED_BY}={PARALLEL_SLICES}", "launch=parallel", f"launch.jobs={JOBS}"]
    _train_py([*sliced, *SMALL], folder)
    return time.perf_counter() - started, len(list(folder.glob("runs/*/summary.json")))


def _train_py(overrides: list[str], folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "spectra_exp", "run", *overrides, f"outputs={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SpectraError(f"benchmark study: train.py failed: {done.stderr.strip().splitlines()[-1]}")
