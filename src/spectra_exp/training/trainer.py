"""Hugging Face Trainer with our data order, optimizer groups, loss bookkeeping and whole checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from spectra_exp.config.schema import Experiment
from spectra_exp.data.batches import NOT_COUNTED, TrainingBlocks, collate, kept_apart
from spectra_exp.foundations.collective import from_first_rank, share_of_labels
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.runs.folder import RunFolder
from spectra_exp.training.fractions import fraction_steps
from spectra_exp.training.optimizers import experts_without_gradient, gradient_norms, make_optimizer, make_schedule
from spectra_exp.training.recorder import Recorder
from spectra_exp.training.sharding import check_distributed, fsdp_arguments
from spectra_exp.training.zero import compile_nothing, hush_deprecations, keep_layers_whole, say_nothing, zero_config

# What Trainer writes by pickling its arguments, and nothing reads.
PICKLED_ARGUMENTS = "training_args.bin"


def training_arguments(experiment: Experiment, folder: RunFolder, device: str) -> TrainingArguments:
    """Trainer's own arguments out of the configuration; cadences are our callbacks' business."""
    trainer, optim = experiment.trainer, experiment.optim
    return TrainingArguments(
        output_dir=str(folder.path),
        max_steps=trainer.max_steps,
        per_device_train_batch_size=trainer.batch_size // trainer.processes,
        gradient_accumulation_steps=trainer.accumulation,
        # Trainer reads 0 as "no norm wanted"; an infinite bound leaves gradients as they are and still has one.
        max_grad_norm=optim.clip_norm or float("inf"),
        bf16=trainer.precision == "bf16",
        deepspeed=zero_config(experiment),
        **fsdp_arguments(experiment),
        # Every method uses all of its parameters in every pass.
        ddp_find_unused_parameters=False,
        activation_checkpointing=trainer.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if trainer.gradient_checkpointing else None,
        neftune_noise_alpha=trainer.neftune_alpha,
        seed=experiment.seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        # W&B has a callback of our own.
        report_to=["tensorboard"] if experiment.logger.name == "tensorboard" else [],
        disable_tqdm=True,
        remove_unused_columns=False,
        log_level="error",
        log_level_replica="error",
    )


class RoutingTrainer(Trainer):
    """Trains one routed model; everything that the project measures passes through `recorder`."""

    model: SpectraMoeForCausalLM
    train_dataset: TrainingBlocks

    def __init__(
        self,
        model: SpectraMoeForCausalLM,
        experiment: Experiment,
        folder: RunFolder,
        blocks: TrainingBlocks,
        recorder: Recorder,
        device: str,
        flops_per_token: float,
        callbacks: list[Any],
    ):
        self.experiment, self.folder, self.recorder = experiment, folder, recorder
        self.flops_per_token = flops_per_token
        # Whether the loss leaves tokens out, of which ranks then have unequal numbers.
        self.counts_some = blocks.counts_some
        self.norms: dict[str, float] = {}
        self._staging: Path | None = None
        say_nothing()
        if experiment.trainer.deepspeed != "none":
            hush_deprecations()
            if device == "cpu":
                compile_nothing()
        if experiment.trainer.deepspeed == "zero3":
            keep_layers_whole(model)
        super().__init__(
            model=model,
            args=training_arguments(experiment, folder, device),
            train_dataset=blocks,
            data_collator=collate,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # The blocks come in the run's own order already.
        return SequentialSampler(self.train_dataset)

    def _prepare_for_training(self, *args: Any) -> Any:
        prepared = super()._prepare_for_training(*args)
        check_distributed(self, self.experiment.trainer)
        return prepared

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model, self.experiment.optim)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = make_schedule(
                optimizer or self.create_optimizer(), self.experiment.optim, num_training_steps
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The training loss of one micro-batch: language-model loss and weighted router terms."""
        output = model(
            input_ids=inputs["input_ids"],
            labels=inputs["labels"],
            return_logits=False,
            **kept_apart(inputs, self.experiment.data.cross_document),
        )
        if model.training:
            if self.counts_some:
                # A rank's mean over its own labels, as its part of the mean over all ranks' labels.
                own_loss = output.lm_loss
                output.lm_loss = own_loss * share_of_labels(inputs["labels"][:, 1:] != NOT_COUNTED)
                output.loss = output.loss + output.lm_loss - own_loss
            self.recorder.take_batch(inputs["input_ids"], output)
        return (output.loss, output) if return_outputs else output.loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Forward and backward, of the experts that are used; Trainer's estimate counts them all, in each step anew."""
        return round(3 * self.flops_per_token * inputs["input_ids"].numel())

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.recorder.due(self.state.global_step + 1):
            self.norms = gradient_norms(model) | experts_without_gradient(self.model)
        return super()._clip_grad_norm(model)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint that is whole or absent: written beside its place by all ranks, then renamed by the first."""
        step = self.state.global_step
        staging: Path = from_first_rank(lambda: self.folder.stage_checkpoint(step))
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            from_first_rank(lambda: self._commit_checkpoint(staging, step))
        finally:
            self._staging = None

    def _commit_checkpoint(self, staging: Path, step: int) -> None:
        written = staging / f"checkpoint-{step}"
        for path in written.iterdir():
            path.rename(staging / path.name)
        written.rmdir()
        (staging / PICKLED_ARGUMENTS).unlink(missing_ok=True)
        self.recorder.save_state(staging)
        self.folder.commit_checkpoint(staging, step, self._kept_steps())

    def _kept_steps(self) -> set[int]:
        keep = self.experiment.trainer.keep_checkpoints == "fractions"
        return set(fraction_steps(self.experiment.trainer.max_steps)) if keep else set()
