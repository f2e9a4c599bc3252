"""A run's folder: where each file of the contract lies, how far the run got, and who may write."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import ConfigError, SpectraError, nearest
from spectra_exp.foundations.files import TEMPORARY_GLOB, one_line_errors
from spectra_exp.runs.checkpoints import NEEDED, CheckpointStore, damage
from spectra_exp.runs.file_hashes import differing, hashes_of
from spectra_exp.runs.lock import HOLDER_NAME, LOCK_NAME, RunLock, holder_alive
from spectra_exp.runs.progress import NAME as PROGRESS_NAME
from spectra_exp.runs.scores import DOCUMENTS, ITEMS
from spectra_exp.runs.summary import Summary, read_summary

HISTORY = "history.parquet"

log = logging.getLogger(__name__)


def needed_by(checkpoint: Path) -> dict[str, Any]:
    """What a verified checkpoint needs: `run_id`, and in `files` the hashes of files of that run's folder by name."""
    return json.loads((checkpoint / NEEDED).read_text(encoding="utf-8"))


class RunFolder:
    """The folder `root/run_id` of one run; nothing is made on the disk before `hold`."""

    def __init__(self, root: str | os.PathLike[str], run_id: str):
        """`root` is the folder of all runs, such as outputs/runs."""
        self.run_id = run_id
        self.path = Path(root) / run_id
        self.config = self.path / "config.yaml"
        self.hydra = self.path / ".hydra"
        self.environment = self.path / "environment.json"
        self.history = self.path / HISTORY
        self.documents, self.items = self.path / DOCUMENTS, self.path / ITEMS
        self.routing = self.path / "routing"
        self.summary = self.path / "summary.json"
        self.analysis = self.path / "analysis"
        self.log = self.path / "train.log"
        self.wandb = self.path / "wandb"
        self._store = CheckpointStore(self.path / "checkpoints")

    @contextmanager
    def hold(self, timeout: float = 0.0) -> Iterator[RunFolder]:
        """This folder, held alone for the block and cleared of what killed writers left.

        `timeout`: seconds to wait for another holder. Raises RunInUse, which names the holder.
        """
        with RunLock(self.path, timeout):
            with one_line_errors(self.path):
                self._clean()
            yield self

    def status(self) -> str:
        """`missing`, `unfinished`, or the summary's status: completed, failed, diverged, stopped, running.

        A damaged summary counts as unfinished, said in a warning. `running` is believed only as long as the
        folder's holder lives: a killed run is `unfinished`.
        """
        if not self.path.is_dir() or not self._content():
            return "missing"
        if not os.path.isfile(self.summary):
            return "unfinished"
        try:
            status: str = self.read_summary()["status"]
        except SpectraError as error:
            log.warning("%s; the run counts as unfinished", error)
            return "unfinished"
        return "unfinished" if status == "running" and not holder_alive(self.path) else status

    def read_summary(self) -> Summary:
        """The run's summary; raises SpectraError with the reason when it is missing or damaged."""
        return read_summary(self.summary)

    @property
    def checkpoints_folder(self) -> Path:
        """Where the checkpoints lie."""
        return self._store.folder

    def checkpoints(self) -> list[Path]:
        """The committed checkpoints, newest first, `checkpoints/step-XXXXXXXX`; unverified."""
        return self._store.complete()

    def latest_checkpoint(self) -> Path | None:
        """This run's newest checkpoint that verifies, or None; a warning names each damaged one and another run's."""
        return self._store.latest(self._problem)

    def resumable_checkpoint(self) -> Path | None:
        """The newest checkpoint that verifies and whose part of this folder is as it was made with, or None.

        A warning names each one passed over, and the last one that the run starts over where none is left.
        """
        found = self._store.latest(self._resume_problem)
        if found is None and self._store.any_left():
            log.warning("%s: no checkpoint is left to go on from; the run starts over", self.path)
        return found

    def forget_after(self, checkpoint: Path) -> None:
        """Remove the routing snapshots that are not `checkpoint`'s, and final scores: what the run did after it."""
        self.documents.unlink(missing_ok=True)
        needed = needed_by(checkpoint)["files"]
        for path in self.routing.glob("step-*.npz"):
            if path.relative_to(self.path).as_posix() not in needed:
                path.unlink()

    def check(self) -> None:
        """Raise SpectraError for what is in a run's way: a file in a folder's place, the reverse, no permission."""
        folders = (self.path, self.hydra, self.routing, self.checkpoints_folder, self.analysis, self.wandb)
        progress = self.path / PROGRESS_NAME
        scores = (self.documents, self.items)
        own = (self.config, self.environment, self.history, *scores, self.summary, self.log, progress)
        files = (*own, *(self.hydra / f"{name}.yaml" for name in ("config", "overrides", "hydra")))
        for path in (*folders, *files):
            wanted, fits = ("folder", os.path.isdir) if path in folders else ("file", os.path.isfile)
            if os.path.lexists(path) and not fits(path):
                raise SpectraError(f"{path}: a {wanted} belongs here, and this is none; move it away")
        needed = dict.fromkeys(files, os.R_OK) | dict.fromkeys(folders, os.R_OK | os.W_OK | os.X_OK)
        for path, access in (needed | {self.log: os.R_OK | os.W_OK}).items():
            if os.path.exists(path) and not os.access(path, access, effective_ids=True):
                wanted = "written" if access & os.W_OK else "read"
                raise SpectraError(f"{path}: may not be {wanted} by this user; change its permissions or outputs")

    def stage_checkpoint(self, step: int) -> Path:
        """A new, empty folder to write the checkpoint of `step` into."""
        return self._store.staging(step)

    def commit_checkpoint(self, staging_dir: str | os.PathLike[str], step: int, keep: Collection[int] = ()) -> Path:
        """The checkpoint made of `staging_dir`; then older ones not in `keep` (steps) are removed.

        It lists, with their hashes, the routing snapshots that are there: those of its steps.
        """
        needed = {"run_id": self.run_id, "files": hashes_of(self.path, ("routing/step-*.npz",))}
        return self._store.commit(staging_dir, step, keep, needed)

    def clear(self) -> None:
        """Remove what the training wrote, and what was made of it, for a fresh start; configuration and log stay.

        The checkpoints go first: a kill in between then leaves a run that starts over, never one that goes
        on from what was to be forgotten.
        """
        for folder in (self.checkpoints_folder, self.routing, self.wandb, self.analysis):
            if folder.exists():
                shutil.rmtree(folder)
        scores = (self.documents, self.items)
        for file in (self.summary, self.history, *scores, self.environment, self.path / PROGRESS_NAME):
            file.unlink(missing_ok=True)

    def left_held(self) -> bool:
        """Whether a process died while it held this folder."""
        return (self.path / HOLDER_NAME).exists() and not holder_alive(self.path)

    def _problem(self, checkpoint: Path) -> str | None:
        """Why no model may be taken from a checkpoint, in words, or None."""
        problem = damage(checkpoint)
        if problem is not None or not (checkpoint / NEEDED).is_file():
            return problem
        made_by = needed_by(checkpoint)["run_id"]
        return None if made_by in self._own_ids() else f"made by another run, {made_by}"

    def _own_ids(self) -> set[str]:
        """What the run calls itself: a copied folder may have got another name."""
        try:
            return {self.run_id, str(self.read_summary().get("run_id"))}
        except SpectraError:
            return {self.run_id}

    def _resume_problem(self, checkpoint: Path) -> str | None:
        problem = damage(checkpoint)
        if problem is not None:
            return problem
        if not (checkpoint / HISTORY).is_file() or not (checkpoint / NEEDED).is_file():
            return "made by earlier code, without the history that goes with it"
        needed = needed_by(checkpoint)
        # Another run's is refused, not passed over, by what is known of its model then.
        others = differing(self.path, needed["files"]) if needed["run_id"] == self.run_id else []
        if not others:
            return None
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        return f"{others[0]}{more} is missing or not the one that it was made with"

    def _content(self) -> list[Path]:
        """What lies in the folder beside the lock; the folder itself where that may not be looked at."""
        try:
            return [path for path in self.path.iterdir() if path.name not in (LOCK_NAME, HOLDER_NAME)]
        except PermissionError:
            return [self.path]

    def _clean(self) -> None:
        self._store.clean()
        for path in self.path.rglob(TEMPORARY_GLOB):
            path.unlink(missing_ok=True)


def make_outputs(folder: Path) -> None:
    """Make the folder of all outputs. ConfigError when that cannot be done or nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("outputs", f"{folder}: {error.strerror}", "give another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("outputs", f"{folder} cannot be written to", "give another folder")


def find_run(name: str, outputs: Path) -> RunFolder:
    """The folder of a run, by its id or its path. Raises ConfigError, with the nearest id."""
    runs = outputs / "runs"
    # os.path's is False of a name that no file system takes, where pathlib's raises.
    path = Path(name) if os.path.isdir(name) else runs / name
    if not os.path.isdir(path):
        close = nearest(name, [p.name for p in runs.iterdir()] if runs.is_dir() else [])
        raise ConfigError("run", f"no run '{name}' in {runs}", f"did you mean '{close}'?" if close else "")
    path = path.resolve()
    return RunFolder(path.parent, path.name)
