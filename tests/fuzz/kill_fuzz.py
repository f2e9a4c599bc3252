"""Kills a small run at random moments, damages what it left one time in two, and lets it go on to its end.

make fuzz FUZZ=kill, or with PYTHONPATH as there: kill_fuzz.py [--kills 30] [--seed 0]

Summary, history, routing and weights must be, bit for bit, those of a run that never stopped; a run that goes on from
less than its newest checkpoint must say so. Ends with status 1 and what was seen if one of this does not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from damages import content_damage
from forks import CRASHED, Child
from test_killed import SMALL, outcome

# For the children, which then have them loaded.
import spectra_exp.training.callbacks.wandb_run
import spectra_exp.training.session  # noqa: F401
from spectra_exp.cli import main as train
from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.runs.folder import RunFolder
from spectra_exp.training.execute import execute  # noqa: F401

LIMIT_S = 300.0
# Exit status of a run that was asked to stop.
INTERRUPTED = 130
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class World:
    """`whole`: the folder of a run that never stopped, which took `seconds`; `other`: that of another run.

    `typed`: what the small run has that differs from SMALL.
    """

    base: Path
    typed: tuple[str, ...]
    whole: Path
    other: Path
    seconds: float


def train_in(outputs: Path, *typed: str) -> Child:
    """The small run in a child."""

    def run() -> int:
        os.environ["SPECTRA_OUTPUTS"] = str(outputs)
        keys = [word.partition("=")[0] for word in typed]
        small = [word for word in SMALL if word.partition("=")[0] not in keys]
        return train([*small, "logger.progress=false", *typed])

    return Child(run, outputs / "printed.txt")


def make_world(base: Path, *typed: str) -> World:
    """Two runs let to their ends, below `base`, where the tokenised data of all runs lie too."""
    prepare_environment()
    folders, seconds = [], 0.0
    for name, more in (("other", ("seed=1",)), ("whole", ())):
        outputs = _outputs(base, name)
        child = train_in(outputs, *typed, *more)
        if child.wait(LIMIT_S) != 0:
            raise RuntimeError(child.text())
        seconds = time.monotonic() - child.started
        folders += (outputs / "runs").iterdir()
    return World(base, typed, folders[1], folders[0], seconds)


def _outputs(base: Path, name: str) -> Path:
    outputs = base / name
    (base / "cache").mkdir(exist_ok=True)
    outputs.mkdir()
    (outputs / "cache").symlink_to(base / "cache")
    return outputs


def episode(world: World, rng: Random, name: str, kills: int) -> Iterator[tuple[int, str]]:
    """A run killed up to `kills` times and let to its end: the kills that met it alive, and each fault in words."""
    outputs = _outputs(world.base, name)
    run = RunFolder(outputs / "runs", world.whole.name)
    past: list[str] = []
    for _ in range(kills):
        met, faults = _attempt(world, rng, outputs, past)
        yield met, ""
        yield from ((0, f"{'; '.join(past)}: {fault}") for fault in faults)
        if run.summary.is_file() and run.status() == "completed":
            break
        if run.path.is_dir() and rng.random() < 0.5 and (done := content_damage(rng, run.path, world.other)):
            past.append(done.text)
    newest, logged = _newest(run.path), _log_size(run.path)
    child = train_in(outputs, *world.typed)
    status, text = child.wait(LIMIT_S), child.text()
    if status == 0:
        faults = [*_went_back_in_silence(run.path, newest, logged, text), *differences(world.whole, run.path)]
    else:
        faults = [f"in the end: status {status}: {text[-300:]}"]
    yield from ((0, f"{'; '.join(past)}: {fault}") for fault in faults)


def _attempt(world: World, rng: Random, outputs: Path, past: list[str]) -> tuple[int, list[str]]:
    """Start the run and send it a signal at a random moment: whether it met it alive (0 or 1), and what was wrong."""
    run = RunFolder(outputs / "runs", world.whole.name)
    before, number, limit = _newest(run.path), rng.choice(SIGNALS), time.monotonic() + LIMIT_S
    child = train_in(outputs, *world.typed)
    # Before the first step, or after it went on for some checkpoints.
    wanted = rng.choice((0, 0, 1, 2, 5, 10, 20))
    pause = rng.uniform(0.02, 0.2 if wanted else world.seconds)
    while wanted and child.poll() is None and time.monotonic() < limit:
        if (newest := _newest(run.path)) != before:
            before, wanted = newest, wanted - 1
        time.sleep(0.002)
    time.sleep(pause)
    met = child.poll() is None
    child.send(number)
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0, 0.3))
        child.send(signal.SIGKILL)
    status, text = child.wait(LIMIT_S), child.text()
    newest = _newest(run.path)
    past.append(f"{signal.Signals(number).name} ({newest.name if newest else 'no checkpoint'})")
    faults = []
    if status is None:
        faults.append(f"did not end in {LIMIT_S:.0f} s after it")
    if status == CRASHED or "Traceback" in text:
        faults.append(f"traceback: {text.strip().splitlines()[-1][:200]}")
    if run.summary.is_file() and run.status() == "completed" and (status == INTERRUPTED or "goes on" in text):
        faults.append(f"completed, but status {status} and: {text.strip()[-200:]}")
    return int(met), faults


def _newest(run: Path) -> Path | None:
    return next(iter(RunFolder(run.parent, run.name).checkpoints()), None)


def _log_size(run: Path) -> int:
    log = run / "train.log"
    return log.stat().st_size if log.is_file() else 0


def _went_back_in_silence(run: Path, newest: Path | None, logged: int, text: str) -> Iterator[str]:
    """A run that did not go on from the newest checkpoint names itself on the terminal."""
    log = (run / "train.log").read_bytes()[logged:].decode("utf-8", errors="replace")
    if newest is None or "training begins" not in log or f"going on from {newest.name}" in log:
        return
    if not any(run.name in line for line in text.splitlines() if line.strip() != str(run)):
        yield f"it did not go on from {newest.name}, and did not say so"


def differences(whole: Path, run: Path) -> Iterator[str]:
    """In what `run` is not, bit for bit, the run in `whole`."""
    try:
        (one, rows, scores), (two, others, other_scores) = outcome(whole), outcome(run)
    except (OSError, SpectraError) as error:
        yield f"not readable: {error}"
        return
    for key in sorted({*one, *two}):
        if one.get(key) != two.get(key):
            yield f"summary.{key} differs: {str(one.get(key))[:100]}; {str(two.get(key))[:100]}"
    if not rows.equals(others):
        yield f"the history differs: {len(rows)} rows, {len(others)} rows"
    if not scores.equals(other_scores):
        yield "the scores of documents differ"
    names = [{path.name for path in (folder / "routing").iterdir()} for folder in (whole, run)]
    if names[0] != names[1]:
        yield f"routing: {sorted(names[0] ^ names[1])} in one alone"
    for name in sorted(names[0] & names[1]):
        with np.load(whole / "routing" / name) as first, np.load(run / "routing" / name) as second:
            if set(first) != set(second) or not all(np.array_equal(first[key], second[key]) for key in first):
                yield f"routing/{name} differs"
    weights = [(_newest(folder) / "model.safetensors").read_bytes() for folder in (whole, run)]
    if weights[0] != weights[1]:
        yield "the weights differ"


def fuzz(world: World, rng: Random, count: int, say: Callable[[str], None]) -> tuple[int, list[str]]:
    """Episodes until `count` kills met a run alive; how many did, and the faults, each said as it is found."""
    met, found, number = 0, [], 0
    while met < count:
        for alive, fault in episode(world, rng, f"run-{number}", min(rng.randint(1, 4), count - met)):
            met += alive
            if fault:
                found.append(f"run {number}: {fault}")
                say(found[-1])
        number += 1
    return met, found


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder).resolve())
        met, found = fuzz(world, Random(options.seed), options.kills, lambda line: print(line, flush=True))
    print(f"{met} kills: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
