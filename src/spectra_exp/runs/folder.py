"""A run's folder: where each file of the contract lies, how far the run got, and who may write."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.files import TEMPORARY_GLOB
from spectra_exp.runs.checkpoints import CheckpointStore
from spectra_exp.runs.lock import HOLDER_NAME, LOCK_NAME, RunLock, holder_alive
from spectra_exp.runs.progress import NAME as PROGRESS_NAME
from spectra_exp.runs.summary import read_summary

log = logging.getLogger(__name__)


class RunFolder:
    """The folder `root/run_id` of one run; nothing is made on the disk before `hold`."""

    def __init__(self, root: str | os.PathLike[str], run_id: str):
        """`root` is the folder of all runs, such as outputs/runs."""
        self.run_id = run_id
        self.path = Path(root) / run_id
        self.config = self.path / "config.yaml"
        self.hydra = self.path / ".hydra"
        self.environment = self.path / "environment.json"
        self.history = self.path / "history.parquet"
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
            self._clean()
            yield self

    def status(self) -> str:
        """`missing`, `unfinished`, or the summary's status: completed, failed, diverged, stopped, running.

        A damaged summary counts as unfinished, said in a warning. `running` is believed only as long as the
        folder's holder lives: a killed run is `unfinished`.
        """
        if not self.path.is_dir() or not self._content():
            return "missing"
        if not self.summary.exists():
            return "unfinished"
        try:
            status: str = self.read_summary()["status"]
        except SpectraError as error:
            log.warning("%s; the run counts as unfinished", error)
            return "unfinished"
        return "unfinished" if status == "running" and not holder_alive(self.path) else status

    def read_summary(self) -> dict[str, Any]:
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
        """The newest checkpoint that verifies, or None; a warning names each damaged one."""
        return self._store.latest()

    def stage_checkpoint(self, step: int) -> Path:
        """A new, empty folder to write the checkpoint of `step` into."""
        return self._store.staging(step)

    def commit_checkpoint(
        self, staging_dir: str | os.PathLike[str], step: int, keep: Collection[int] = ()
    ) -> Path:
        """The checkpoint made of `staging_dir`; then older ones not in `keep` (steps) are removed."""
        return self._store.commit(staging_dir, step, keep)

    def clear(self) -> None:
        """Remove what the training wrote, and what was made of it, for a fresh start; configuration and log stay.

        The checkpoints go first: a kill in between then leaves a run that starts over, never one that goes
        on from what was to be forgotten.
        """
        for folder in (self.checkpoints_folder, self.routing, self.wandb, self.analysis):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.summary, self.history, self.environment, self.path / PROGRESS_NAME):
            file.unlink(missing_ok=True)

    def left_held(self) -> bool:
        """Whether a process died while it held this folder."""
        return (self.path / HOLDER_NAME).exists() and not holder_alive(self.path)

    def _content(self) -> list[Path]:
        return [path for path in self.path.iterdir() if path.name not in (LOCK_NAME, HOLDER_NAME)]

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
