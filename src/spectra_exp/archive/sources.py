"""Where runs are read from: the folder of outputs, other folders, archives, alone or beside each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spectra_exp.archive.file import LAUNCH, PROFILE, Archive, read_archive
from spectra_exp.config.verb import VerbOptions
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.files import json_text, regular
from spectra_exp.foundations.options import option
from spectra_exp.runs.stored import StoredRun, stored_runs
from spectra_exp.studies.ledger import Launch, launch_of, read_launches


@dataclass(frozen=True)
class SourceOptions(VerbOptions):
    """What a verb over finished runs reads."""

    runs: tuple[str, ...] = option(
        (),
        "archives, and folders of outputs or of runs, separated by commas, in place of the runs of outputs",
        path=True,
    )


@dataclass
class RunSources:
    """`where`: what was read, in words; `stored`: every run that was found, by name; `launches`: what was launched,
    oldest first; `skipped`: files of launches that cannot be used, and why; `profile`: the JSON of the profile of
    routing, None where there is none."""

    where: str
    stored: dict[str, StoredRun] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    profile: str | None = None


def read_sources(outputs: Path, named: Sequence[str] = ()) -> RunSources:
    """The runs of what was named, or those of `outputs`. Raises ConfigError for what is neither archive nor folder.

    Of a run that several have the first one stays whose figures can be used.
    """
    found = RunSources(", ".join(named) or str(outputs / "runs"))
    for name in named or [str(outputs)]:
        if os.path.isdir(name) or not named:
            _add_folder(found, Path(name))
        elif os.path.isfile(name):
            _add_archive(found, read_archive(Path(name)))
        else:
            raise ConfigError("runs", f"there is no '{name}'", "name archives, folders of outputs, or folders of runs")
    found.launches.sort(key=lambda launch: launch.launched)
    return found


def profile_file(outputs: Path) -> Path:
    """Where the profile of routing of a folder of outputs lies."""
    return outputs / "bench" / "overhead.json"


def _add_folder(found: RunSources, folder: Path) -> None:
    """A folder of outputs, of runs, or of one run."""
    if (folder / "summary.json").is_file():
        _add(found, [StoredRun(folder)])
        return
    outputs = folder.parent if folder.name == "runs" else folder
    _add(found, stored_runs(outputs / "runs"))
    launches, skipped = read_launches(outputs)
    found.launches += launches
    found.skipped |= skipped
    try:
        profile = regular(profile_file(outputs)).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError:
        # Who reads it says that it is none.
        profile = ""
    found.profile = found.profile or profile


def _add_archive(found: RunSources, archive: Archive) -> None:
    _add(found, archive.runs().values())
    for name, content in archive.shared(LAUNCH):
        try:
            found.launches.append(launch_of(content))
        except SpectraError as error:
            found.skipped[f"{archive.path} {name}"] = str(error)
    for _, content in archive.shared(PROFILE):
        found.profile = found.profile or json_text(content)


def _add(found: RunSources, runs: Iterable[StoredRun]) -> None:
    for run in runs:
        former = found.stored.get(run.run_id)
        if former is None or (former.refusal is not None and run.refusal is None):
            found.stored[run.run_id] = run
    found.stored = dict(sorted(found.stored.items()))
