"""Declared runs made launch by launch and kept in one archive: what is missing is made, what has ended is packed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.archive.file import Archive, read_archive, write_archive
from spectra_exp.archive.packing import pack_runs
from spectra_exp.config.compose import load_experiment
from spectra_exp.foundations.devices import visible_gpus
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.shell import DONE
from spectra_exp.reporting.paper.blocks import Block
from spectra_exp.reporting.paper.progress import NO_TEXT, Known, in_words, known_runs, progress
from spectra_exp.runs.stored import stored_runs
from spectra_exp.studies.command import launch_study
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.expand import study_jobs
from spectra_exp.studies.job import planned_jobs
from spectra_exp.studies.ledger import write_launch
from spectra_exp.studies.state import GOOD


@dataclass(frozen=True)
class Campaign:
    """`outputs`: where the runs are made; `path`: the archive, of which alone what is published is made."""

    outputs: Path
    path: Path

    @property
    def archive(self) -> Archive:
        """The archive as it is now; an empty one before the first run."""
        return read_archive(self.path) if self.path.exists() else Archive(self.path)

    @property
    def known(self) -> Known:
        """What is known of the runs, here and in the archive."""
        return known_runs(self.outputs, self.archive)

    @property
    def is_packed(self) -> bool:
        """Whether every run that has ended is in the archive."""
        ended = {run.run_id for run in stored_runs(self.outputs / "runs") if run.refusal is None}
        return ended <= set(self.archive.run_ids)

    def words(self, blocks: Sequence[Block], text: Path | None, processes: int) -> str:
        """How far the blocks are, and how long the rest will take."""
        return in_words(blocks, progress(blocks, self.known, text), processes)

    def make(self, block: Block, text: Path | None, processes: int) -> bool:
        """Make the runs of a block that are missing; whether none is left."""
        whole, known = True, self.known
        elsewhere = {run_id for run_id, state in known.archived.items() if state in GOOD}
        for found in progress([block], known, text)[block.name]:
            launch = found.launch
            if found.is_done:
                continue
            if found.unmade:
                fix = "; give text=FOLDER" if found.unmade == NO_TEXT else ""
                print(f"block {block.name}: {launch.study} is left out: {found.unmade}{fix}", file=sys.stderr)
                whole = False
                continue
            print(f"block {block.name}: {launch.study} {' '.join(launch.typed)}", file=sys.stderr)
            at_once = [] if processes == 1 else ["launch=parallel", f"launch.jobs={processes}"]
            if at_once and visible_gpus():
                at_once.append(f"launch.per_gpu={processes}")
            typed = [*launch.typed_with(text), f"outputs={self.outputs}", *at_once]
            whole &= launch_study(load_study(launch.study).choice, typed, elsewhere) == DONE
        return whole

    def take(self, other: Archive, blocks: Sequence[Block], text: Path | None) -> int:
        """Put the runs of the blocks that another archive has into this one, as if launched here; how many."""
        archive = self.archive
        shared: set[str] = set()
        for launch in (launch for block in blocks for launch in block.launches if text or not launch.needs_text):
            study, typed = load_study(launch.study), [*launch.typed_with(text), f"outputs={self.outputs}"]
            jobs = planned_jobs([load_experiment(line) for line in study_jobs(study, typed)])
            write_launch(study, typed, jobs)
            shared |= {job.run_id for job in jobs if job.run_id is not None} & set(other.run_ids)
        shared -= set(archive.run_ids)
        if shared:
            archive.take(other.runs_alone(shared))
            write_archive(archive, self.path)
        return len(shared)

    def pack(self, again: str) -> Archive:
        """Put what has ended into the archive. SpectraError, with the command `again`, where there is no run at all."""
        archive = self.archive
        if any((self.outputs / "runs").glob("*/summary.json")):
            for run_id, reason in pack_runs(archive, self.outputs, (), ()).left_out.items():
                print(f"left out {run_id}: {reason}", file=sys.stderr)
        if not archive.run_ids:
            raise SpectraError(f"{self.path}: no run has finished; make some: {again}")
        write_archive(archive, self.path)
        return archive


def chosen_blocks(blocks: Sequence[Block], names: Sequence[str], key: str) -> list[Block]:
    """The blocks of these names, all without any. ConfigError for an unknown one, which names the key."""
    known = {block.name: block for block in blocks}
    ConfigError.refuse_unknown(key, names, known)
    return [block for block in blocks if not names or block.name in names]
