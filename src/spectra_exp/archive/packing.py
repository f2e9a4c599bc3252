"""Run folders and archives packed into one archive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from spectra_exp.archive.content import plain_config, run_parts
from spectra_exp.archive.file import DEFAULTS, LAUNCH, PROFILE, Archive
from spectra_exp.archive.places import without_places
from spectra_exp.archive.sources import read_sources
from spectra_exp.archive.trees import changed_texts
from spectra_exp.config.compose import load_experiment
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.runs.identity import digest
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.stored import StoredRun
from spectra_exp.studies.ledger import SCHEMA, Launch

# What a run can have come to; others may still go on.
ENDED = ("completed", "diverged", "not_run", "failed")


@dataclass
class Packing:
    """What was packed. `left_out`: why each other run was not, by name; `differing`: runs that were there already with
    other figures, which stay as they were."""

    archive: Archive
    left_out: dict[str, str] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)


def pack_runs(archive: Archive, outputs: Path, named: Sequence[str], studies: Sequence[str]) -> Packing:
    """Add the ended runs of `named` (folders and archives; those of `outputs` where none is) to the archive.

    Of `studies` alone where any is named. Raises ConfigError for a study that no run is of.
    """
    sources, done = read_sources(outputs, named), Packing(archive)
    chosen = {run_id: run for run_id, run in sources.stored.items() if _is_of(run, studies)}
    launches = [launch for launch in sources.launches if not studies or launch.study in studies]
    # A launch counts runs of its study that another study made.
    asked = {run.run_id for launch in launches for run in launch.runs}
    chosen |= {run_id: run for run_id, run in sources.stored.items() if run_id in asked}
    if not chosen:
        raise ConfigError("study" if studies else "runs", f"no run of {', '.join(studies) or sources.where}")
    for run_id, run in sorted(chosen.items()):
        try:
            parts = _usable_parts(run)
        except SpectraError as error:
            done.left_out[run_id] = str(error)
            continue
        code = str(parts["summary"].get("fingerprints", {}).get("code"))
        archive.add_run(run_id, parts, _defaults(archive, code, parts["config"]))
    for launch in launches:
        archive.add_shared(LAUNCH, *_launch(launch))
    if sources.profile is not None and not studies:
        archive.add_shared(PROFILE, "overhead", changed_texts(json.loads(sources.profile), without_places))
    return done


def merge(archives: Sequence[Archive], path: Path) -> Packing:
    """All that several archives hold, in one."""
    done = Packing(Archive(path))
    for archive in archives:
        done.differing += done.archive.take(archive)
    return done


def _is_of(run: StoredRun, studies: Sequence[str]) -> bool:
    summary: Mapping[str, Any] = run.summary or {}
    return not studies or bool(set(studies) & set(summary.get("studies") or ()))


def _usable_parts(run: StoredRun) -> dict[str, Any]:
    """The parts of a run that has ended. Raises SpectraError for another one, and for what cannot be used."""
    status = None if run.summary is None else run.summary["status"]
    if status is not None and status not in ENDED:
        raise SpectraError(f"it has not ended: {status}")
    if problem := run.refusal if status == "completed" else run.changed_files:
        raise SpectraError(problem)
    return run_parts(run)


def _defaults(archive: Archive, code: str, config: dict[str, Any]) -> str:
    """The name of what configurations of a version of the code are stored as differences from: its defaults.

    Those of another version than today's can no longer be composed: there the first run's configuration stands for
    them.
    """
    for name, content in archive.shared(DEFAULTS):
        if content["code"] == code:
            return name
    defaults = _todays_defaults() if code == code_version() else config
    return archive.add_shared(DEFAULTS, None, {"code": code, "config": defaults})


@cache
def _todays_defaults() -> dict[str, Any]:
    experiment = load_experiment([])
    plain = {key: value for key, value in asdict(experiment).items() if key != "overrides"}
    return json.loads(json.dumps(plain_config(plain)))


def _launch(launch: Launch) -> tuple[str, dict[str, Any]]:
    """The name and the content of a launch; the same set of runs has the same name."""
    kept = asdict(launch) if launch.design else {k: v for k, v in asdict(launch).items() if k != "design"}
    content = changed_texts({"schema": SCHEMA, **kept}, without_places)
    return f"{launch.study}-{digest([run['overrides'] for run in content['runs']])}", content
