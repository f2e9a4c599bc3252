"""What a run keeps of its training: history rows, the hash of the batches seen, losses since the last row.

All of it travels with a checkpoint, so that a resumed run writes the rows of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectra_exp.foundations.collective import (
    many_ranks,
    max_over_ranks,
    mean_over_ranks,
    own_rank,
    rows_of_all_ranks,
    total_over_ranks,
)
from spectra_exp.measure.balance import coefficient_of_variation, max_violation
from spectra_exp.measure.base import MetricTable
from spectra_exp.measure.compute import finite
from spectra_exp.moe.model import SpectraMoeOutput
from spectra_exp.moe.record import check_executed
from spectra_exp.runs.folder import HISTORY, RunFolder
from spectra_exp.runs.history import History
from spectra_exp.runs.provenance import code_version

log = logging.getLogger(__name__)

STATE_FILE = "recorder.json"
# Steps left out of the timing medians while caches and allocators settle.
WARMUP_STEPS = 5


@dataclass
class StepFigures:
    """Sums over the micro-batches of the optimizer step in progress, of this rank's tokens."""

    losses: list[torch.Tensor] = field(default_factory=list)
    terms: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    coefficients: dict[str, float] = field(default_factory=dict)
    counts_LE: np.ndarray | None = None
    tokens: int = 0
    residuals: list[torch.Tensor] = field(default_factory=list)

    def of_all_ranks(self) -> StepFigures:
        """The same of the global batch: means of losses and terms, sums of counts, the largest residual."""
        if not many_ranks():
            return self
        counts_LE = None if self.counts_LE is None else torch.from_numpy(self.counts_LE)
        return StepFigures(
            losses=[mean_over_ranks(torch.stack(self.losses))],
            terms={name: [mean_over_ranks(torch.stack(self.terms[name]))] for name in sorted(self.terms)},
            coefficients=self.coefficients,
            counts_LE=None if counts_LE is None else total_over_ranks(counts_LE).numpy(),
            tokens=int(total_over_ranks(torch.tensor(self.tokens))),
            residuals=[max_over_ranks(torch.stack(self.residuals).max())] if self.residuals else [],
        )


class Recorder:
    """Collects one run's figures and writes `history.parquet`."""

    def __init__(self, folder: RunFolder, max_steps: int, log_every: int, plugins: tuple[str, ...] = ()):
        self.folder, self.max_steps, self.log_every = folder, max_steps, log_every
        self.history = History()
        self.batches_hash = ""
        # Of all code that had a part in the run, the first one first: code edited since makes it a run of several.
        self.code_version = code_version(plugins)
        self.code_versions = [self.code_version]
        self.window: list[float] = []
        self.first_loss: float | None = None
        self.max_residual = 0.0
        self.latest: dict[str, float] = {}
        self.step_seconds: list[float] = []
        self._step = StepFigures()
        self._told_unused = False
        self._started = time.perf_counter()
        # Seconds of the sessions before, up to the checkpoint that this one goes on from.
        self.earlier_s = 0.0
        self._began = self._started

    @property
    def total_s(self) -> float:
        """Seconds of the run in all its sessions; what one had done after its last checkpoint is not among them."""
        return self.earlier_s + time.perf_counter() - self._began

    def fraction(self, step: int) -> float:
        """Share of the run's steps done."""
        return step / self.max_steps

    def begin_step(self) -> None:
        """Start the clock and the sums of an optimizer step."""
        self._step, self._started = StepFigures(), time.perf_counter()

    def take_batch(self, input_ids: torch.Tensor, output: SpectraMoeOutput) -> None:
        """Add one micro-batch of training."""
        content = rows_of_all_ranks(input_ids.cpu()).numpy().astype("<i8").tobytes()
        self.batches_hash = hashlib.sha256(self.batches_hash.encode() + content).hexdigest()[:32]
        step, routing = self._step, output.routing
        assert output.lm_loss is not None and routing is not None
        assert output.terms is not None and output.coefficients is not None
        step.losses.append(output.lm_loss.detach())
        for name, term in output.terms.items():
            step.terms.setdefault(name, []).append(term.detach())
        step.coefficients = output.coefficients
        records = [routing.records[layer] for layer in sorted(routing.records)]
        step.residuals += [r.figures["sinkhorn_residual"] for r in records if "sinkhorn_residual" in r.figures]
        if records:
            check_executed(records)
            counts_LE = torch.stack([r.chosen_NE.sum(0) for r in records]).cpu().numpy()
            step.tokens += len(records[0].chosen_NE)
            step.counts_LE = counts_LE if step.counts_LE is None else step.counts_LE + counts_LE

    def end_step(self) -> float:
        """Close the step; returns its mean training loss over the global batch (nats)."""
        self._step = self._step.of_all_ranks()
        loss = float(torch.stack(self._step.losses).mean())
        self.window.append(loss)
        self.step_seconds.append(time.perf_counter() - self._started)
        if self._step.residuals:
            self.max_residual = max(self.max_residual, float(torch.stack(self._step.residuals).max()))
        self.latest["loss"] = loss
        if self._step.counts_LE is not None:
            is_used_L = self._step.counts_LE.any(axis=1)
            used_LE = self._step.counts_LE[is_used_L]
            self._tell_of_unused(np.flatnonzero(~is_used_L).tolist())
            if len(used_LE):
                self.latest["load_cv"] = float(coefficient_of_variation(used_LE).mean())
        return loss

    def _tell_of_unused(self, layers: list[int]) -> None:
        """Say so once when a step's tokens all passed a layer by."""
        if layers and not self._told_unused:
            log.warning(
                "routed layer %s: no token has an expert there, so that all pass it by; training goes on",
                ", ".join(map(str, layers)),
            )
        self._told_unused = self._told_unused or bool(layers)

    def due(self, step: int) -> bool:
        """Whether a history row of training is written after `step`."""
        return step % self.log_every == 0 or step == self.max_steps

    def write_training_row(self, step: int, extra: dict[str, float]) -> dict[str, float]:
        """Add the rows of training at `step` (means since the last ones) and return those over all layers."""
        figures = self._step
        row = {"train_loss": statistics.fmean(self.window)} | extra
        for name, values in figures.terms.items():
            term = float(torch.stack(values).mean())
            row[f"{name}_loss"], row[f"{name}_loss_weighted"] = term, term * figures.coefficients[name]
        if figures.residuals:
            row["sinkhorn_residual"] = float(torch.stack(figures.residuals).max())
        self.latest["train_loss"] = row["train_loss"]
        self.window = []
        self.history.add(step, self.fraction(step), "train", row)
        if figures.counts_LE is not None:
            of_used = {"load_cv_batch": coefficient_of_variation, "max_vio_batch": max_violation}
            # Of a layer that no token has an expert in, these are not defined.
            with np.errstate(invalid="ignore"):
                columns = {name: [finite(v) for v in of(figures.counts_LE).tolist()] for name, of in of_used.items()}
            executed_L = figures.counts_LE.sum(axis=1) / max(figures.tokens, 1)
            table = MetricTable(columns | {"executed_k": executed_L.tolist()})
            self.history.add(step, self.fraction(step), "train", table.rows())
            row |= table.all()
        return row

    def timings(self, tokens_per_step: int) -> dict[str, float]:
        """Median step time and throughput of this process after its first steps; empty when it made none."""
        steady = self.step_seconds[WARMUP_STEPS:] or self.step_seconds
        if not steady:
            return {}
        median = statistics.median(steady)
        return {
            "step_time_ms": 1000 * median,
            "tokens_per_second": tokens_per_second(tokens_per_step, median),
            "session_steps": len(self.step_seconds),
        }

    def save_state(self, folder: Path) -> None:
        """Write what a resumed run needs into a checkpoint being staged, and the history beside it."""
        state = {
            "batches_hash": self.batches_hash,
            "code_versions": self.code_versions,
            "window": self.window,
            "first_loss": self.first_loss,
            "max_residual": self.max_residual,
            "latest": self.latest,
            "earlier_s": self.total_s,
        }
        (folder / STATE_FILE).write_text(json.dumps(state))
        # The run's own copy goes on to change after the checkpoint, and this one may not.
        self.history.save(folder / HISTORY)
        self.save_history()

    def save_history(self) -> None:
        """Write the history, the same on every rank, from the first."""
        if own_rank() == 0:
            self.history.save(self.folder.history)

    def load_state(self, checkpoint: Path) -> None:
        """Go on from a checkpoint: its state and its history."""
        state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text())
        for key, value in state.items():
            setattr(self, key, value)
        if self.code_version not in self.code_versions:
            self.code_versions.append(self.code_version)
        if len(self.code_versions) > 1:
            log.warning(
                "the code changed since this run began, which counts as stale from now on; force=true starts it anew"
            )
        self.history = History.load(checkpoint / HISTORY)


def tokens_per_second(tokens: int, seconds: float) -> float:
    """Throughput; 0 when no time passed."""
    return tokens / seconds if seconds > 0 else 0.0
