"""A progress bar on the terminal: loss, load imbalance, throughput, time left."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from spectra_exp.training.recorder import Recorder, tokens_per_second


class ProgressBar(TrainerCallback):
    """Shown only where `console` is a terminal."""

    def __init__(self, console: Console, title: str, recorder: Recorder, tokens_per_step: int):
        self.recorder, self.title, self.tokens_per_step = recorder, title, tokens_per_step
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.start()
        self.task = self.progress.add_task(
            self.title, total=state.max_steps, completed=state.global_step, figures="evaluating"
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        latest = self.recorder.latest
        cv = f" CV {latest['load_cv']:.2f}" if "load_cv" in latest else ""
        speed = tokens_per_second(self.tokens_per_step, self.recorder.step_seconds[-1])
        self.progress.update(
            self.task, completed=state.global_step, figures=f"loss {latest['loss']:.3f}{cv} {speed:,.0f} tok/s"
        )

    def stop(self) -> None:
        """Take the bar off the terminal, also after a failure."""
        self.progress.stop()
