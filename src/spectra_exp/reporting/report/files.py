"""What a run's folder holds, as far as it can be read, and what is wrong with the rest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import History
from spectra_exp.runs.routing_files import load_snapshot, snapshot_paths

LOG_BYTES = 64 * 1024  # of a longer log the end is shown

Curves = dict[tuple[str, str, str], list[tuple[int, float]]]


@dataclass(frozen=True)
class RunFiles:
    """A run's files.

    `curves`: (step, value) by (split, layer, metric); `snapshots`: by step; `problems`: what could not be read.
    A file that is not there is empty and no problem: a run that goes on has no summary yet.
    """

    run_id: str
    summary: dict[str, Any] | None
    config: str
    environment: str
    log: str
    curves: Curves
    snapshots: dict[int, RoutingSnapshot]
    problems: list[str] = field(default_factory=list)


def read_run(path: Path) -> RunFiles:
    """The files of the run's folder `path`; nothing in it makes this fail."""
    folder = RunFolder(path.parent, path.name)
    problems: list[str] = []
    summary = None
    if folder.summary.exists():
        try:
            summary = folder.read_summary()
        except SpectraError as error:
            problems.append(_short(error, path))
    return RunFiles(
        path.name,
        summary,
        _text(folder.config, problems),
        _text(folder.environment, problems),
        _text(folder.log, problems, LOG_BYTES),
        _curves(folder, problems),
        _snapshots(folder, problems),
        problems,
    )


def last_snapshot(path: Path) -> RoutingSnapshot | None:
    """The routing at the end of the run in `path`, None without a readable one."""
    paths = list(snapshot_paths(RunFolder(path.parent, path.name).routing).values())
    try:
        return load_snapshot(paths[-1]) if paths else None
    except SpectraError:
        # The run's own page names the damage.
        return None


def _text(path: Path, problems: list[str], limit: int | None = None) -> str:
    """The file's text, its end alone where it is longer than `limit` bytes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        problems.append(f"{path.name}: not readable ({error.strerror})")
        return ""
    if limit is None or len(content) <= limit:
        return content.decode("utf-8", errors="replace")
    kept = content[-limit:].partition(b"\n")[2]
    return f"... {len(content) - len(kept)} bytes before this\n{kept.decode('utf-8', errors='replace')}"


def _curves(folder: RunFolder, problems: list[str]) -> Curves:
    curves: Curves = defaultdict(list)
    if not folder.history.exists():
        return curves
    try:
        frame = History.load(folder.history).frame()
    except SpectraError as error:
        problems.append(_short(error, folder.path))
        return curves
    # NaN and infinite values have no place in a picture.
    frame = frame[frame["value"].abs() < float("inf")]
    for step, split, layer, metric, value in zip(
        *(frame[column].tolist() for column in ("step", "split", "layer", "metric", "value")), strict=True
    ):
        curves[split, layer, metric].append((step, value))
    return curves


def _snapshots(folder: RunFolder, problems: list[str]) -> dict[int, RoutingSnapshot]:
    found = {}
    for step, path in snapshot_paths(folder.routing).items():
        try:
            found[step] = load_snapshot(path)
        except SpectraError as error:
            problems.append(_short(error, folder.path))
    return found


def _short(error: SpectraError, folder: Path) -> str:
    """The message without the folder's own path."""
    return str(error).replace(f"{folder}/", "")
