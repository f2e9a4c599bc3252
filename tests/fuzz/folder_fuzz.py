"""Damages a finished run in random ways, and has tables, figures, report, status, share, analyze and train read it.

make fuzz FUZZ=folder, or with PYTHONPATH as there: folder_fuzz.py [--damages 200] [--seed 0]

Each must end with a status of 0, 1 or 2, without a traceback and in time. The damaged run is named in a line, no other
is; what the tables hold of the others stays; of the damaged run they hold true figures or none. Ends with status 1 and
what was seen if one of this does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

import made_runs
from damages import damage
from forks import Child
from matplotlib.figure import Figure
from small_run import DATA, MODEL

from spectra_exp.cli import command
from spectra_exp.config.compose import prepare_environment
from spectra_exp.runs.history import History
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import make_jobs
from spectra_exp.studies.ledger import write_launch
from spectra_exp.training.execute import execute

TINY = [
    *MODEL,
    *DATA,
    "trainer.max_steps=4",
    "trainer.batch_size=2",
    "trainer.log_every=1",
    "logger.progress=false",
]
# One that reads histories and one that reads snapshots.
DRAWN = ("loss_curves_methods", "usage_histograms")
ASKED = ("tables", "figures", "report", "status", "share", "analyze", "train")
LIMIT_S = 120.0


@dataclass(frozen=True)
class World:
    """`outputs` with two trained runs of a study and some that only have a summary. `run` is the one to damage.

    `asked`: the commands that read it. `whole` and `without`: the numbers of the tables with all runs, and of those
    without that run. `told`: what each command printed while all was whole.
    """

    outputs: Path
    pristine: Path
    run: Path
    other: Path
    typed: list[str]
    asked: tuple[str, ...]
    whole: set[str]
    without: set[str]
    told: dict[str, str]

    def commands(self, run: Path) -> dict[str, Callable[[], int]]:
        """What is called, by name, the one that may train last."""
        outputs = f"outputs={self.outputs}"
        every = {
            "tables": ["tables", outputs],
            "figures": ["figures", outputs, f"only={','.join(DRAWN)}"],
            "report": ["report", outputs],
            "status": ["study", "status"],
            "share": ["share", f"run={run.name}", f"to={self.outputs / 'shared'}", outputs],
            "analyze": ["interpret", f"run={run.name}", "parts=load,oscillation", "tokens=64", "device=cpu"],
            "train": ["run", *self.typed],
        }
        return {name: partial(command, words) for name, words in every.items() if name in self.asked}

    def restore(self) -> None:
        """All as it was before a damage."""
        for name in ("runs", "tables", "figures", "report", "shared"):
            _make_removable(self.outputs / name)
            shutil.rmtree(self.outputs / name, ignore_errors=True)
        shutil.copytree(self.pristine, self.outputs / "runs", symlinks=True)


def _unpainted(figure: Figure, target: io.IOBase, **options: object) -> None:
    target.write(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>' if isinstance(target, io.TextIOBase) else b"-"
    )


@contextlib.contextmanager
def made_world(asked: Sequence[str] = ASKED) -> Iterator[World]:
    """A world in a temporary folder, SPECTRA_OUTPUTS of the block; `asked`: the commands that are to read it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"SPECTRA_OUTPUTS": folder}),
        # What is read counts here; painting it would take most of the time.
        mock.patch.object(Figure, "savefig", _unpainted),
    ):
        outputs = Path(folder).resolve()
        try:
            yield _make(outputs, asked)
        finally:
            _make_removable(outputs)


def _make(outputs: Path, asked: Sequence[str]) -> World:
    prepare_environment()
    study, typed = load_study("baselines"), ["seed=0", "baseline=switch_top2,hash", *TINY]
    jobs = make_jobs(study_jobs(study, typed))
    for job in jobs:
        if execute(job.planned, "") != "completed":
            raise RuntimeError(f"{job.run_id} did not complete")
    write_launch(study, typed, jobs)
    made = [
        made_runs.summary(cell, 0, {"val_loss": 4.0 + place / 7, "load_cv": 0.2 + place / 9})
        for place, cell in enumerate(("left", "right"))
    ]
    made_runs.write(outputs, *made)
    pristine = outputs / "pristine"
    shutil.copytree(outputs / "runs", pristine)
    run, other = (job.planned.folder.path for job in jobs)
    world = World(outputs, pristine, run, other, jobs[0].overrides, tuple(asked), set(), set(), {})
    # Here, for the modules and caches that the children then have; and once each in a child.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for call in world.commands(run).values():
            call()
    told = {name: text for name, (_, text) in ask(world).items()}
    world.told.update(told)
    world.whole.update(numbers(outputs / "tables"))
    shutil.rmtree(run)
    tables_alone = Child(world.commands(run)["tables"], outputs / "tables.log")
    tables_alone.wait(LIMIT_S)
    world.without.update(numbers(outputs / "tables"))
    return world


def ask(world: World) -> dict[str, tuple[int | None, str]]:
    """The exit status (None: it hung) and the text of each command."""
    found = {}
    for name, call in world.commands(world.run).items():
        child = Child(call, world.outputs / f"{name}.log")
        found[name] = (child.wait(LIMIT_S), child.text())
    return found


def numbers(folder: Path) -> set[str]:
    """Every number in the tables of `folder`, as it is written there; those in sentences are no figures."""
    found = set()
    for path in sorted(folder.glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                for cell in row:
                    words = [word for word in re.split(r"[\s±*()\[\],]+", cell) if word]
                    if all(map(_is_number, words)):
                        found.update(words)
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def faults(world: World, named: bool, asked: dict[str, tuple[int | None, str]]) -> Iterator[str]:
    """What is wrong with what the commands said and wrote about a damaged run; `named`: it must be named."""
    for name, (status, text) in asked.items():
        if status is None:
            yield f"{name}: did not end in {LIMIT_S:.0f} s"
        elif status not in (0, 1, 2):
            yield f"{name}: status {status}: {_last_line(text)}"
        elif "Traceback (most recent call last)" in text:
            yield f"{name}: traceback: {_last_line(text)}"
        elif status and not text.strip():
            yield f"{name}: status {status} without a word"
        elif raw := re.search(r"failed: (\w*(?:Error|Exception|Interrupt): .*)", text):
            yield f"{name}: internal: {raw[1][:200]}"
        for line in text.splitlines():
            if len(line) > 2000 and world.run.name in line:
                yield f"{name}: a line of {len(line)} letters"
    if asked["tables"][0] != 0:
        yield f"tables: the rest is not tabulated: {_last_line(asked['tables'][1])}"
        return
    held = numbers(world.outputs / "tables")
    if foreign := held - world.whole - world.without:
        yield f"tables: numbers that no run has: {', '.join(sorted(foreign)[:6])}"
    if lost := (world.whole & world.without) - held:
        yield f"tables: numbers of other runs are gone: {', '.join(sorted(lost)[:6])}"
    lines = [line for _, text in asked.values() for line in text.splitlines()]
    if named and not any(world.run.name in line for line in _new(lines, world)):
        yield "the damaged run is not named"
    others = [path.name for path in world.pristine.iterdir() if path.name != world.run.name]
    for line in _new(lines, world):
        # A line without a space is a result's place, which a link may lead to.
        if " " in line and any(name in line for name in others) and world.run.name not in line:
            yield f"another run is named: {line[:200]}"
    if "train" in asked:
        yield from _trained_anew(world, *asked["train"])


def _new(lines: list[str], world: World) -> list[str]:
    """The lines that were not printed when all was whole, nor are a result's place."""
    usual = {line for text in world.told.values() for line in text.splitlines()}
    return [line for line in lines if line not in usual]


def _trained_anew(world: World, status: int | None, text: str) -> Iterator[str]:
    """A run that was completed again has its old figures."""
    if status != 0 or "already completed" in text:
        return
    first, again = (
        json.loads((folder / "summary.json").read_text()) for folder in (world.pristine / world.run.name, world.run)
    )
    for key in ("metrics", "metrics_by_layer", "metrics_training_rule", "floors", "parameters"):
        if first[key] != again[key]:
            yield f"train: completed again with other {key}"
    one, two = (
        History.load(folder / "history.parquet").frame() for folder in (world.pristine / world.run.name, world.run)
    )
    if not one.equals(two):
        yield f"train: completed again with another history ({len(one)} rows, then {len(two)})"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")[:300]


def _make_removable(folder: Path) -> None:
    for path in folder.rglob("*") if folder.is_dir() and not folder.is_symlink() else ():
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def fuzz(world: World, rng: Random, count: int, say: Callable[[str], None]) -> list[str]:
    """Damage the run `count` times, one time in five twice over; returns what was found, and says each."""
    found = []
    for trial in range(count):
        world.restore()
        done = [damage(rng, world.run, world.other)]
        # Not where a link would lead it into another run.
        if rng.random() < 0.2 and not any(path.is_symlink() for path in (world.run, *world.run.rglob("*"))):
            with contextlib.suppress(OSError, ValueError, StopIteration, IndexError):
                done.append(damage(rng, world.run, world.other))
        asked = ask(world)
        what = " and ".join(d.text for d in done)
        for fault in faults(world, any(d.named for d in done), asked):
            found.append(f"{trial}: {what}: {fault}")
            say(found[-1])
    return found


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with made_world() as world:
        found = fuzz(world, Random(options.seed), options.damages, lambda line: print(line, flush=True))
    print(f"{options.damages} damaged folders: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
