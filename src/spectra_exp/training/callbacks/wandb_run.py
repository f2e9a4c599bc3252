"""One Weights & Biases run for one of ours, from before the first step to the final metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from transformers import TrainerCallback
from transformers.integrations.integration_utils import rewrite_logs

from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.collective import own_rank
from spectra_exp.runs.folder import RunFolder

# Groups whose chosen options are the run's tags.
TAGGED = ("router", "osr", "baseline", "ablation")


class WandbRows(TrainerCallback):
    """Sends each row that the trainer logs, under the names that Hugging Face's loggers use, with its step.

    Hugging Face's own callback keeps `train_loss` out of the curves and takes one run per process.
    """

    def __init__(self, run: Any):
        self.run = run

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        # Trainer's closing row averages `train_loss` over the whole run.
        if "train_runtime" not in logs:
            self.run.log(rewrite_logs(logs) | {"step": state.global_step})


@contextmanager
def wandb_run(
    experiment: Experiment, folder: RunFolder, summary: dict[str, Any], resumed: bool
) -> Iterator[list[TrainerCallback]]:
    """The callbacks that log the block's training to a W&B run; none under another logger or on another
    rank than the first.

    `summary`: the run's summary as filled by the block; its metrics and floors go to the W&B run, which counts as
    failed unless the status is then `completed` or `stopped`. Raises wandb's own errors when `online` cannot start.
    """
    if experiment.logger.name != "wandb" or own_rank():
        yield []
        return
    # Read when W&B's service starts, which otherwise reports errors and usage over the network.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # The service's own log; without a home to write to it would go to the terminal.
    os.environ.setdefault("WANDB_CACHE_DIR", str(Path(experiment.outputs) / "cache"))
    import wandb

    # Of what W&B prints, warnings and errors reach the terminal.
    wandb.setup(wandb.Settings(show_info=False, quiet=True))
    run = wandb.init(
        project=experiment.logger.project,
        entity=experiment.logger.entity,
        mode=cast(Any, experiment.logger.mode),
        id=folder.run_id,
        name=f"{summary['label']} s{experiment.seed}",
        group=experiment.logger.group or experiment.study or summary["cell_id"],
        tags=[
            *(f"{group}={experiment.choices[group]}" for group in TAGGED if experiment.choices[group] != "none"),
            *experiment.logger.tags,
        ],
        config=asdict(experiment) | {"cell_id": summary["cell_id"]},
        dir=folder.path,
        reinit="finish_previous",
        # Offline pieces of one id become one W&B run on `wandb sync`. A run that starts over replaces what is there.
        resume="allow" if resumed else None,
        # environment.json has what these would collect.
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            # Seconds of rows that a killed process can lose; a resumed run starts at its checkpoint and repeats none.
            x_transaction_log_flush_interval=1.0,
        ),
    )
    # W&B's own step counts rows; ours goes on where a resumed run does.
    run.define_metric("*", step_metric="step")
    try:
        yield [WandbRows(run)]
    finally:
        run.summary.update(summary["metrics"] | {"floors": summary["floors"]})
        if summary["status"] == "stopped":
            run.mark_preempting()
        run.finish(exit_code=0 if summary["status"] == "completed" else 1)
