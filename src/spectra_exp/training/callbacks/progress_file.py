"""Leaves the progress of a run where other processes can read it."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from spectra_exp.runs.progress import ProgressWriter
from spectra_exp.training.recorder import Recorder


class ProgressFile(TrainerCallback):
    """Writes progress.json now and then."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.writer = ProgressWriter(recorder.folder.path, recorder.max_steps)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.writer.update(state.global_step, self.recorder.latest)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.writer.update(state.global_step, self.recorder.latest)
