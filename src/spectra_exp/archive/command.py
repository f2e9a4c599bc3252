"""`spectra-exp archive`: pack runs into one file, merge such files, list and check what is in them."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.archive.file import ENDING, LAUNCH, Archive, read_archive, write_archive
from spectra_exp.archive.packing import Packing, merge, pack_runs
from spectra_exp.archive.repeat import drawn, repeat
from spectra_exp.archive.sources import SourceOptions
from spectra_exp.config.verb import Verb, VerbOptions, dispatch
from spectra_exp.foundations.errors import ConfigError, SpectraError, nearest
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED, HELP
from spectra_exp.runs.provenance import code_version, cpu_name

MOST_CELLS = 10_000
SEVERAL = "; a run of several studies is counted in each"


@dataclass(frozen=True)
class PackOptions(SourceOptions):
    """What is packed, and where it goes."""

    file: str | None = option(None, f"the archive, NAME{ENDING}; runs are added to one that is there", path=True)
    study: tuple[str, ...] = option((), "only runs of these studies, separated by commas")


@dataclass(frozen=True)
class MergeOptions(VerbOptions):
    """Which archives become which one."""

    file: str | None = option(None, f"the archive to make, NAME{ENDING}", path=True)
    archives: tuple[str, ...] = option((), "the archives that go into it, separated by commas", path=True)


@dataclass(frozen=True)
class ListOptions(VerbOptions):
    """Which archive is listed."""

    file: str | None = option(None, "the archive", path=True)
    runs: bool = option(False, "a line for each run")


@dataclass(frozen=True)
class VerifyOptions(VerbOptions):
    """Which archive is checked, and how."""

    file: str | None = option(None, "the archive", path=True)
    cells: int = option(
        0, "runs of embedded data, drawn at random, to make again and compare", minimum=0, maximum=MOST_CELLS
    )
    seed: int | None = option(None, "draws the same runs again", minimum=0)
    only: tuple[str, ...] = option((), "make these runs again in place of drawn ones")


def _pack(options: PackOptions) -> int:
    path = _named(options.file)
    archive = read_archive(path) if path.exists() else Archive(path)
    before = len(archive.run_ids)
    done = pack_runs(archive, options.folder, options.runs, options.study)
    return _written(done, f"{len(done.archive.run_ids) - before} new")


def _merge(options: MergeOptions) -> int:
    path = _named(options.file)
    if not options.archives:
        raise ConfigError("archives", "is missing", "name the archives that are to be merged")
    archives = [read_archive(Path(name)) for name in options.archives]
    done = merge(archives, path)
    several = sum(len(archive.run_ids) for archive in archives) - len(done.archive.run_ids)
    return _written(done, f"{several} of them a second time")


def _written(done: Packing, counted: str) -> int:
    for run_id, reason in done.left_out.items():
        print(f"left out {run_id}: {reason}", file=sys.stderr)
    for run_id in done.differing:
        print(f"{run_id}: in several archives with other figures; those of the first one stay", file=sys.stderr)
    archive = done.archive
    if not archive.run_ids:
        raise SpectraError(f"{archive.path}: no run can be packed")
    write_archive(archive, archive.path)
    size, runs = archive.path.stat().st_size, len(archive.run_ids)
    print(f"{archive.path}: {runs} runs ({counted}), {size / 1e6:.2f} MB, {size / runs / 1e3:.1f} kB a run")
    return FAILED if done.differing else DONE


def _list(options: ListOptions) -> int:
    archive = read_archive(_named(options.file))
    runs = {run_id: run.required_summary for run_id, run in archive.runs().items()}
    if options.runs:
        for run_id, summary in runs.items():
            print(f"{run_id}  {summary['status']}  code {_code(summary)}  {', '.join(_studies(summary))}")
        return DONE
    counts = Counter((study, _code(summary)) for summary in runs.values() for study in _studies(summary))
    for (study, code), count in sorted(counts.items()):
        print(f"{study:<24} {count:>5} runs  code {code}{'' if code != code_version() else ' (as here)'}")
    launches = sum(1 for _ in archive.shared(LAUNCH))
    several = sum(counts.values()) > len(runs)
    print(f"{archive.path}: {len(runs)} runs, {launches} launches{SEVERAL if several else ''}")
    return DONE


def _verify(options: VerifyOptions) -> int:
    archive = read_archive(_named(options.file))
    print(f"{archive.path}: whole; {len(archive.run_ids)} runs, every part as its hash says")
    ConfigError.refuse_unknown("only", options.only, archive.run_ids)
    chosen = options.only or drawn(archive, options.cells, options.seed)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for run_id in chosen:
            run = archive.run(run_id)
            for what, then, now in (
                ("code", _code(run.required_summary), code_version()),
                ("processor", run.processor, cpu_name()),
            ):
                if then != now:
                    print(f"{run_id}: by {what} {then}, here is {now}: digits may differ", file=sys.stderr)
            differing = repeat(run, Path(folder), print)
            failed += bool(differing)
            for line in differing[:20]:
                print(f"{run_id}: {line}", file=sys.stderr)
            more = f"{len(differing)} figures differ (archived, now)"
            print(f"{run_id}: {more if differing else 'every digit as archived'}")
    return FAILED if failed else DONE


def _named(file: str | None) -> Path:
    if file is None:
        raise ConfigError("file", "is missing", f"name the archive: NAME{ENDING}")
    if not file.endswith(ENDING):
        raise ConfigError("file", f"'{file}' does not end in {ENDING}", f"an archive is called NAME{ENDING}")
    return Path(file)


def _code(summary: dict) -> str:
    return str((summary.get("fingerprints") or {}).get("code"))


def _studies(summary: dict) -> list[str]:
    return summary.get("studies") or ["(no study)"]


PACK = Verb(
    "archive",
    PackOptions,
    _pack,
    "Pack runs into one file that tables, figures and report read with runs=FILE.\n"
    "`archive merge`, `archive list` and `archive verify` have keys of their own (--help).",
    ("runs.parquet", "runs.parquet study=core,baselines", "runs.parquet runs=outputs,other/outputs"),
    bare=("file",),
)
COMMANDS = {
    "merge": Verb(
        "archive merge",
        MergeOptions,
        _merge,
        "One archive of several; of a run that two have the first one's stays.",
        ("all.parquet a.parquet b.parquet",),
        bare=("file", "archives"),
    ),
    "list": Verb(
        "archive list",
        ListOptions,
        _list,
        "The studies in an archive, with the code that made their runs.",
        ("runs.parquet", "runs.parquet runs=true"),
        bare=("file",),
    ),
    "verify": Verb(
        "archive verify",
        VerifyOptions,
        _verify,
        "Whether an archive is whole; with cells=N, whether N runs of it come out again, digit for digit.",
        ("runs.parquet", "runs.parquet cells=3"),
        bare=("file",),
    ),
}


def main(words: Sequence[str]) -> int:
    """The exit status of the command that the first word names; without one runs are packed."""
    # What looks like a command and is no archive's name was mistyped.
    is_name = bool(words) and (words[0].endswith(ENDING) or "=" in words[0])
    if words and not is_name and nearest(words[0], COMMANDS):
        return dispatch("archive", COMMANDS, words)
    return PACK(words if words else HELP[:1])
