"""`spectra-exp paper`: the runs of the paper's results, block by block, and the folder that is made of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.archive.file import Archive, read_archive, write_archive
from spectra_exp.archive.packing import pack_runs
from spectra_exp.config.tree import project_root
from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.devices import SHARES
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED
from spectra_exp.reporting.paper.blocks import Block, check_text, read_blocks
from spectra_exp.reporting.paper.progress import GOOD, NO_TEXT, Known, in_words, known_runs, progress
from spectra_exp.reporting.paper.publish import ARCHIVE, PAGE, publish
from spectra_exp.runs.stored import stored_runs
from spectra_exp.studies.command import launch_study
from spectra_exp.studies.definition import load_study

# Of outputs/, where the runs of the paper lie apart from others.
RUNS = "paper"


@dataclass(frozen=True)
class PaperOptions(VerbOptions):
    """What is run and published."""

    status: bool = option(False, "how far it is and how long the rest will take here; runs nothing")
    run: bool = option(True, "false makes the page, tables and figures of the archive and what has finished")
    text: str | None = option(None, "the folder of the real text: train.jsonl and validation.jsonl", path=True)
    blocks: tuple[str, ...] = option((), "only these blocks, separated by commas")
    processes: int = option(2, "runs at once; on a GPU they share it", minimum=1, maximum=SHARES)
    to: str | None = option(None, "the folder that is published; docs/results/paper unless set", path=True)


def make_paper(options: PaperOptions) -> int:
    """Make what is missing of each block in its order; publish after each. 1 where something is still missing."""
    text, blocks = check_text(options.text), _chosen(read_blocks(), options.blocks)
    outputs = options.folder / RUNS
    folder = Path(options.to) if options.to else project_root() / "docs" / "results" / "paper"
    if options.status:
        print(in_words(blocks, progress(blocks, _known(outputs, folder), text), options.processes))
        return DONE
    if not options.run:
        return _publish(outputs, folder)
    whole = True
    for block in blocks:
        whole &= _make_block(block, outputs, folder, text, options.processes)
        if (outputs / "runs").is_dir() and not _is_published(outputs, folder):
            _publish(outputs, folder)
    print(in_words(blocks, progress(blocks, _known(outputs, folder), text), options.processes))
    return DONE if whole else FAILED


def _make_block(block: Block, outputs: Path, folder: Path, text: Path | None, processes: int) -> bool:
    """Make the runs of a block that are missing; whether none is left."""
    whole = True
    for found in progress([block], _known(outputs, folder), text)[block.name]:
        launch = found.launch
        if found.is_done:
            continue
        if found.unmade:
            fix = "; give text=FOLDER" if found.unmade == NO_TEXT else ""
            print(f"block {block.name}: {launch.study} is left out: {found.unmade}{fix}", file=sys.stderr)
            whole = False
            continue
        print(f"block {block.name}: {launch.study} {' '.join(launch.typed)}", file=sys.stderr)
        at_once = (
            []
            if processes == 1
            else [
                "launch=parallel",
                f"launch.jobs={processes}",
                f"launch.per_gpu={processes}",
            ]
        )
        typed = [*launch.typed_with(text), f"outputs={outputs}", *at_once]
        archived = _known(outputs, folder).archived
        elsewhere = {run_id for run_id, state in archived.items() if state in GOOD}
        whole &= launch_study(load_study(launch.study).choice, typed, elsewhere) == DONE
    return whole


def _publish(outputs: Path, folder: Path) -> int:
    """Put what has finished into the archive and make the folder of it. Raises SpectraError without any run."""
    archive = _archive(folder)
    if any((outputs / "runs").glob("*/summary.json")):
        for run_id, reason in pack_runs(archive, outputs, (), ()).left_out.items():
            print(f"left out {run_id}: {reason}", file=sys.stderr)
    if not archive.run_ids:
        raise SpectraError(f"{folder / ARCHIVE}: no run has finished; make some: make paper")
    write_archive(archive, folder / ARCHIVE)
    paths = publish(folder)
    size = sum(path.stat().st_size for path in [*paths, folder / ARCHIVE])
    print(f"{folder / PAGE}: {len(archive.run_ids)} runs, {len(paths) + 1} files, {size / 1e6:.1f} MB")
    return DONE


def _is_published(outputs: Path, folder: Path) -> bool:
    """Whether every ended run is in the archive already and the page has been made of it."""
    ended = {run.run_id for run in stored_runs(outputs / "runs") if run.refusal is None}
    return (folder / PAGE).is_file() and ended <= set(_archive(folder).run_ids)


def _known(outputs: Path, folder: Path) -> Known:
    return known_runs(outputs, _archive(folder))


def _archive(folder: Path) -> Archive:
    path = folder / ARCHIVE
    return read_archive(path) if path.exists() else Archive(path)


def _chosen(blocks: Sequence[Block], names: Sequence[str]) -> list[Block]:
    known = {block.name: block for block in blocks}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError.unknown("blocks", unknown[0], known)
    return [block for block in blocks if not names or block.name in names]


main = Verb(
    "paper",
    PaperOptions,
    make_paper,
    "The runs of the paper's results that are missing, block by block, and docs/results/paper made of them.",
    ("status=true", "text=FOLDER", "text=FOLDER blocks=a,b", "run=false"),
)
