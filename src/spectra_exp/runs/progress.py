"""How far a run is, in a small file of its own that any other process may read while the run goes on."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from spectra_exp.foundations.files import regular, write_json

NAME = "progress.json"
# At most one write in so many seconds: a write waits for the disk.
EVERY_S = 2.0


@dataclass(frozen=True)
class Progress:
    """`step` of `max_steps` done; latest loss (nats) and load CV; seconds that the rest should take, None at first."""

    step: int
    max_steps: int
    loss: float | None = None
    load_cv: float | None = None
    seconds_left: float | None = None


class ProgressWriter:
    """Writes a run's progress, now and then."""

    def __init__(self, folder: Path, max_steps: int):
        self.path, self.max_steps = folder / NAME, max_steps
        self._first: tuple[int, float] | None = None
        self._written = 0.0

    def update(self, step: int, latest: dict[str, float]) -> None:
        """Note the figures after `step`; the time left is judged by the pace of this process so far."""
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        if step < self.max_steps and now - self._written < EVERY_S:
            return
        first_step, since = self._first
        made = step - first_step
        left = (now - since) / made * (self.max_steps - step) if made else None
        self._written = now
        progress = Progress(step, self.max_steps, latest.get("loss"), latest.get("load_cv"), left)
        write_json(self.path, asdict(progress))


def read_progress(folder: Path) -> Progress | None:
    """What the run in `folder` last noted, None before it did or when the file cannot be read."""
    try:
        return Progress(**json.loads(regular(folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        # A reader comes at any moment, also before the first write.
        return None
