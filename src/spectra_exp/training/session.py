"""One run's training from its first or last step to its final figures."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from spectra_exp.config.plugins import plugins_of
from spectra_exp.config.schema import Experiment
from spectra_exp.data.batches import TrainingBlocks, collate
from spectra_exp.data.corpus import Corpus
from spectra_exp.foundations import stopping
from spectra_exp.foundations.allocator import hand_memory_back, keep_freed_memory
from spectra_exp.foundations.collective import own_rank
from spectra_exp.foundations.errors import Diverged, first_line
from spectra_exp.measure.base import METRICS
from spectra_exp.measure.compute import (
    compute_floors,
    compute_stability,
    compute_stability_floors,
    compute_swing,
    compute_swing_floors,
)
from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.measure.swing import LayerTraining, layer_trainings
from spectra_exp.moe.accounting import Size, model_size, number_varies
from spectra_exp.moe.attention import use_attention
from spectra_exp.moe.context import RoutingContext
from spectra_exp.moe.experts_kernel import use_experts_kernel
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.moe.routing_kernel import use_routing_kernel
from spectra_exp.routing.osr import INFERENCE_RULES, NoOsr
from spectra_exp.routing.selection import rule_in_force
from spectra_exp.runs.fingerprints import weights_hash
from spectra_exp.runs.folder import RunFolder
from spectra_exp.runs.history import CHANCE, FINAL, TRAIN, TRAINING_RULE, VALIDATION
from spectra_exp.runs.routing_files import load_snapshot, save_snapshot, snapshot_path
from spectra_exp.runs.scores import save_documents
from spectra_exp.training.build import build_model
from spectra_exp.training.callbacks.budget import TimeBudget
from spectra_exp.training.callbacks.cadence import Cadence
from spectra_exp.training.callbacks.clock import Clock
from spectra_exp.training.callbacks.progress import ProgressBar
from spectra_exp.training.callbacks.progress_file import ProgressFile
from spectra_exp.training.callbacks.settle import Settle
from spectra_exp.training.callbacks.signals import StopOnSignal
from spectra_exp.training.callbacks.steps import Steps
from spectra_exp.training.callbacks.update_ratios import UpdateRatios
from spectra_exp.training.evaluation import Evaluation, Evaluator
from spectra_exp.training.fit import check_fits
from spectra_exp.training.fractions import fraction_steps
from spectra_exp.training.guard import check_losses, sequences_to_check
from spectra_exp.training.recorder import Recorder
from spectra_exp.training.sharding import forget_sharding
from spectra_exp.training.trainer import RoutingTrainer
from spectra_exp.training.zero import forget_configuration

log = logging.getLogger(__name__)


@dataclass
class Result:
    """What a session leaves for the summary. `status`: completed or stopped."""

    status: str
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_by_layer: dict[str, list[float | None]] = field(default_factory=dict)
    metrics_training_rule: dict[str, float] = field(default_factory=dict)
    metrics_by_inference: dict[str, dict[str, float]] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    causality: dict[str, Any] = field(default_factory=dict)
    # Whether active parameters and FLOPs follow from the measured number of experts.
    size_as_measured: bool = False


class Session:
    """Builds model, data order and trainer of one experiment; `run` trains and measures."""

    def __init__(
        self, experiment: Experiment, corpus: Corpus, folder: RunFolder, device: str, console: Console | None = None
    ):
        keep_freed_memory()
        self.experiment, self.corpus, self.folder, self.device = experiment, corpus, folder, device
        trainer = experiment.trainer
        self.max_steps = trainer.max_steps
        self.tokens_per_step = trainer.batch_size * trainer.accumulation * experiment.data.sequence_length
        self.model = build_model(experiment, corpus)
        attention = use_attention(self.model, experiment.attention_request(device))
        log.info("attention: %s (%s)", attention.name, attention.reason)
        kernel = use_experts_kernel(self.model, experiment.experts_kernel_request(device))
        log.info("experts: %s (%s)", kernel.name, kernel.reason)
        loops = use_routing_kernel(self.model, experiment.model.routing_kernel, device)
        log.info("loops of routing: %s (%s)", loops.name, loops.reason)
        self.initial_weights = weights_hash(self.model)
        self.size: Size = model_size(self.model, experiment.data.sequence_length)
        self.blocks = TrainingBlocks(
            corpus, seed=experiment.seed, examples_needed=self.max_steps * trainer.batch_size * trainer.accumulation
        )
        self.recorder = Recorder(folder, self.max_steps, trainer.log_every, plugins_of(experiment))
        self.evaluator = self._evaluator(corpus)
        self.final_evaluator = self._evaluator(corpus.final) if corpus.final else None
        if corpus.final:
            warn_of_short_set(corpus.final, experiment.data.final_evaluation_tokens)
        tell_what_is_left_out(self.blocks, corpus, experiment.data.probe_tokens)
        self.bar = None
        if console is not None:
            title = f"{experiment.router.name} s{experiment.seed}"
            self.bar = ProgressBar(console, title, self.recorder, self.tokens_per_step)
        self.trainer = self._make_trainer()
        self.wall_s = 0.0

    def _evaluator(self, corpus: Corpus) -> Evaluator:
        trainer, data = self.experiment.trainer, self.experiment.data
        return Evaluator(
            corpus,
            trainer.evaluation_batch_size,
            data.probe_tokens,
            torch.device(self.device),
            trainer.precision == "bf16",
            data.cross_document,
        )

    def _make_trainer(self) -> RoutingTrainer:
        steps, ratios = Steps(self.experiment), UpdateRatios(self.recorder)
        callbacks = [
            ratios,
            Clock(self.experiment.optim, self.max_steps, self.recorder),
            Settle(self.max_steps, self._route_training_batch),
            steps,
            Cadence(self.experiment.trainer, self.evaluate),
            *([self.bar] if self.bar else []),
            *([ProgressFile(self.recorder)] if own_rank() == 0 else []),
            *([TimeBudget(budget)] if (budget := self.experiment.trainer.time_budget_s) else []),
            StopOnSignal(),
        ]
        trainer = RoutingTrainer(
            self.model,
            self.experiment,
            self.folder,
            self.blocks,
            self.recorder,
            self.device,
            self.size.flops_per_token,
            callbacks,
        )
        steps.trainer = ratios.trainer = trainer
        return trainer

    def run(self, checkpoint: Path | None) -> Result:
        """Train from `checkpoint` or from the start to the end or until told to stop. Raises SpectraError."""
        started = time.perf_counter()
        try:
            with stopping.noting(), torch.autograd.set_detect_anomaly(self.experiment.debug.detect_anomaly):
                if checkpoint is not None:
                    check_fits(self.model, checkpoint, self.folder.run_id)
                    if own_rank() == 0:
                        self.folder.forget_after(checkpoint)
                    self.recorder.load_state(checkpoint)
                self._train(checkpoint)
                step = self.trainer.state.global_step
                if step < self.max_steps:
                    return Result("stopped", step)
                return self._finish()
        finally:
            if self.bar is not None:
                self.bar.stop()
            self.wall_s = time.perf_counter() - started
            self.recorder.save_history()
            forget_configuration()
            forget_sharding()
            hand_memory_back()

    def _train(self, checkpoint: Path | None) -> None:
        try:
            self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.linalg.LinAlgError as error:
            # A factorisation of what is not finite any more fails before a loss could tell.
            if all(bool(p.isfinite().all()) for p in self.model.parameters()):
                raise
            step = self.trainer.state.global_step + 1
            raise Diverged(f"the weights are not finite at step {step} ({first_line(error)})") from error

    def _route_training_batch(self, index: int, context: RoutingContext) -> None:
        accelerator = self.trainer.accelerator
        size = self.experiment.trainer.batch_size // accelerator.num_processes
        first = (index * accelerator.num_processes + accelerator.process_index) * size
        self.evaluator.route(self.model, collate([self.blocks[first + i] for i in range(size)]), context)

    def evaluate(self, step: int) -> Evaluation:
        """Evaluate under the rule of inference; rows to the history, routing to a snapshot, losses to the guard."""
        batch = collate(sequences_to_check(self.blocks, self.experiment.trainer.batch_size))
        loss = check_losses(self.trainer, self.evaluator, batch, step)
        if step == 0:
            self.recorder.first_loss = loss
        evaluation = self.evaluator.run(self.model)
        self._write_rows(step, VALIDATION, evaluation)
        if evaluation.statistics and own_rank() == 0:
            fraction = self.recorder.fraction(step)
            snapshot = RoutingSnapshot.from_statistics(evaluation.statistics, step, fraction)
            save_snapshot(self.folder.routing, snapshot)
        self.trainer.log({f"eval_{name}": value for name, value in evaluation.all().items()})
        return evaluation

    def _write_rows(self, step: int, split: str, evaluation: Evaluation) -> None:
        history, fraction = self.recorder.history, self.recorder.fraction(step)
        history.add(step, fraction, split, evaluation.losses | evaluation.figures)
        if evaluation.table is not None:
            history.add(step, fraction, split, evaluation.table.rows())

    def _finish(self) -> Result:
        """The last evaluation with floors, the training rule where it differs, stability, causality.

        Snapshots, and with them stability, are of the usual set; the other figures of the larger one if there is one.
        """
        final = self.evaluate(self.max_steps)
        evaluator, split = self.evaluator, VALIDATION
        if self.final_evaluator is not None:
            evaluator, split = self.final_evaluator, FINAL
            final = evaluator.run(self.model)
            self._write_rows(self.max_steps, split, final)
        if own_rank() == 0:
            save_documents(self.folder.documents, final.documents, evaluator.corpus.domains)
        result = Result("completed", self.max_steps, final.all())
        if number_varies(self.model):
            self.size = model_size(self.model, self.experiment.data.sequence_length, result.metrics["executed_k"])
            result.size_as_measured = True
        if final.table is not None:
            table, floors = final.table, compute_floors(final.statistics)
            snapshots = self._fraction_snapshots()
            if len(snapshots) > 1:
                stability = compute_stability(snapshots)
                self.recorder.history.add(self.max_steps, 1.0, VALIDATION, stability.rows())
                table = table.merged(stability)
                floors = floors.merged(compute_stability_floors(snapshots))
            trainings = self._trainings()
            swing, swing_floors = compute_swing(trainings), compute_swing_floors(trainings)
            self.recorder.history.add(self.max_steps, 1.0, TRAIN, swing.rows())
            table, floors = table.merged(swing), floors.merged(swing_floors)
            result.metrics |= table.all()
            result.metrics_by_layer = table.by_layer()
            result.floors = floors_by_metric(floors.all() | table.all())
            self.recorder.history.add(self.max_steps, 1.0, CHANCE, floors.rows())
        if rules_differ(self.model):
            training = evaluator.run(self.model, training_rule=True)
            self._write_rows(self.max_steps, split + TRAINING_RULE, training)
            result.metrics_training_rule = training.all()
        result.metrics_by_inference = self._other_inference_rules(evaluator)
        inference = self.evaluator.causality(self.model, training_rule=False)
        one_rule = not rules_differ(self.model) and self.evaluator.rules_agree(self.model)
        training_rule = inference if one_rule else self.evaluator.causality(self.model, training_rule=True)
        result.causality = {
            "causal": inference.causal,
            "causal_training": training_rule.causal,
            "causality_change": inference.largest_change,
            "causality_change_training": training_rule.largest_change,
        }
        return result

    def _other_inference_rules(self, evaluator: Evaluator) -> dict[str, dict[str, float]]:
        """What SPECTRA's other rules of inference would score with these weights; it needs no training."""
        osr = self.model.settings.osr
        found: dict[str, dict[str, float]] = {}
        if isinstance(osr, NoOsr) or osr.solver != "sinkhorn":
            return found
        configured = osr.sinkhorn_inference
        try:
            for rule in INFERENCE_RULES:
                if rule != configured:
                    # Every router reads the one object.
                    osr.sinkhorn_inference = rule
                    found[rule] = evaluator.run(self.model).all()
        finally:
            osr.sinkhorn_inference = configured
        return found

    def _trainings(self) -> list[LayerTraining]:
        settings = self.model.settings
        shape = settings.num_real, settings.top_k, self.tokens_per_step
        return layer_trainings(self.recorder.history.frame(), self.max_steps, *shape)

    def _fraction_snapshots(self) -> list[RoutingSnapshot]:
        if own_rank():
            # The first rank writes them, maybe later than this one would look, and its figures are the run's.
            return []
        steps = sorted(set(fraction_steps(self.max_steps)))
        return [load_snapshot(snapshot_path(self.folder.routing, step)) for step in steps]


def tell_what_is_left_out(blocks: TrainingBlocks, corpus: Corpus, probe_tokens: int) -> None:
    """Log, as warnings, what of the data is not used or smaller than asked for."""
    for note in corpus.notes:
        log.warning("%s", note)
    if blocks.share_left_out:
        log.warning(
            "%.1f %% of the training sequences have no token that the loss counts and are not trained on",
            100 * blocks.share_left_out,
        )
    if corpus.eval_blocks.size < probe_tokens:
        log.warning(
            "data.probe_tokens=%d is more than the validation tokens that are scored: the routing of all %d is written "
            "down",
            probe_tokens,
            corpus.eval_blocks.size,
        )


def warn_of_short_set(final: Corpus, wanted: int) -> None:
    """Log a warning when the validation split could not fill the final evaluation's set of `wanted` tokens."""
    if len(final.eval_blocks) < wanted // final.sequence_length:
        log.warning(
            "data.final_evaluation_tokens=%d is more than the validation split has: the final figures are over all "
            "of its %d tokens in whole blocks",
            wanted,
            final.eval_blocks.size,
        )


def floors_by_metric(values: dict[str, float]) -> dict[str, float]:
    """The chance floor of each metric that has one, out of figures by name (gram_rms's is a metric of its own)."""
    return {m.name: values[m.floor_name] for m in METRICS.values() if m.floor_name in values}


def rules_differ(model: SpectraMoeForCausalLM) -> bool:
    """Whether training routes by another rule than inference, noise and dropout aside."""
    training, inference = (rule_in_force(model.settings.selection, training_rule) for training_rule in (True, False))
    return bool(model.routed_layers and (training != inference or model.routed_layers[0].router.two_rules))
