"""Schemas of the groups that belong to no other room, and the whole experiment as one typed object."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any

from spectra_exp.foundations.bounds import (
    LARGEST_COUNT,
    LARGEST_LENGTH,
    LARGEST_MEMORY,
    LARGEST_RATE,
    LARGEST_SEED,
    LARGEST_WEIGHT,
    MOST_JOBS,
    MOST_LOOKED_AT,
    MOST_PROCESSES,
    MOST_THREADS,
)
from spectra_exp.foundations.devices import SHARES
from spectra_exp.foundations.options import default_of, option
from spectra_exp.moe.schema import AttentionRequest, ExpertsKernelRequest
from spectra_exp.routing.losses import LossesConfig

# Groups that cannot change a result, and presets, whose effect is in the groups they set.
LABELS = (
    "baseline",
    "ablation",
    "logger",
    "launch",
    "search",
    "debug",
    "choices",
    "overrides",
    "force",
    "refresh",
    "study",
    "outputs",
)


# The groups of options and what each is about, in the order in which help has them.
GROUPS = {
    "router": "how tokens are scored against experts",
    "osr": "SPECTRA's cost and transport, and its rules of training and inference",
    "selection": "how scores become assignments",
    "temperature": "divisor of the router's logits",
    "baseline": "a method of the literature in one word (sets router, selection, model)",
    "ablation": "one change to the full method",
    "model": "backbone and experts",
    "data": "where the text comes from",
    "losses": "what the router losses are counted over",
    "optim": "optimizer and learning rates",
    "trainer": "steps, batches, cadences, precision",
    "logger": "where else figures go",
    "launch": "how the jobs of a multirun are spread",
    "search": "what hydra/sweeper=optuna looks for",
    "debug": "help with finding faults",
}


@dataclass
class RootKeys:
    """Keys outside every group."""

    seed: int = option(0, "seed of initial weights, data order and noise", minimum=0, maximum=LARGEST_SEED)
    force: bool = option(False, "run again even if this configuration has finished")
    refresh: str = option("none", "stale: run again what finished under other code", choices=["none", "stale"])
    study: str | None = option(None, "name of the study that this run is for")
    plugins: list[str] = option([], "modules to import first, whose routers, rules, metrics and sources there then are")
    outputs: str = option("${oc.env:SPECTRA_OUTPUTS}", "folder of runs, cache and tables", path=True)


# What Hydra composes; each group's own schema comes with its option.
RootConfig = make_dataclass("RootConfig", [(group, Any, None) for group in GROUPS], bases=(RootKeys,))


@dataclass
class OptimConfig:
    """Optimizer, learning rates by parameter group, schedule, clipping."""

    name: str = option("adamw", "adamw, or muon for hidden matrices and adamw for the rest", choices=["adamw", "muon"])
    learning_rate: float = option(
        3e-3, "AdamW peak rate of all parameters without one of their own", above=0, maximum=LARGEST_RATE
    )
    router_learning_rate: float | None = option(
        None, "peak rate of routers; none takes learning_rate", above=0, maximum=LARGEST_RATE
    )
    expert_learning_rate: float | None = option(
        None,
        "peak rate of experts; none takes learning_rate (under muon: muon_learning_rate)",
        above=0,
        maximum=LARGEST_RATE,
    )
    beta1: float = option(0.9, "AdamW decay of the first moment", minimum=0, maximum=0.999999)
    beta2: float = option(0.95, "AdamW decay of the second moment", minimum=0, maximum=0.999999)
    epsilon: float = option(1e-8, "AdamW denominator constant", above=0, maximum=LARGEST_WEIGHT)
    weight_decay: float = option(
        0.1, "decoupled weight decay of matrices (none on norms, biases, scales)", minimum=0, maximum=LARGEST_WEIGHT
    )
    muon_learning_rate: float = option(0.07, "Muon peak rate of hidden matrices", above=0, maximum=LARGEST_RATE)
    muon_momentum: float = option(0.9, "Muon momentum", minimum=0, maximum=0.9999)
    warmup_fraction: float = option(0.05, "share of the steps with a linearly rising rate", minimum=0, maximum=1)
    final_fraction: float = option(
        0.1, "rate at the last step as a share of the peak (cosine decay)", minimum=0, maximum=1
    )
    clip_norm: float = option(1.0, "largest gradient norm; 0 switches clipping off", minimum=0, maximum=LARGEST_COUNT)


@dataclass
class TrainerConfig:
    """Length, batches, cadences, precision."""

    max_steps: int = option(250, "optimizer steps", unit="steps", minimum=1, maximum=LARGEST_COUNT)
    batch_size: int = option(
        16, "sequences in one micro-batch, over all processes", unit="sequences", minimum=1, maximum=LARGEST_LENGTH
    )
    accumulation: int = option(1, "micro-batches in one optimizer step", minimum=1, maximum=LARGEST_LENGTH)
    eval_every: int = option(
        0,
        "evaluate every so many steps besides 0, 10, 25, 50, 75, 100 %; 0: only then",
        unit="steps",
        minimum=0,
        maximum=LARGEST_COUNT,
    )
    evaluation_batch_size: int = option(
        32, "sequences in one evaluation batch", unit="sequences", minimum=1, maximum=LARGEST_LENGTH
    )
    log_every: int = option(
        10,
        "write training losses, load and gradient norms every so many steps",
        unit="steps",
        minimum=1,
        maximum=LARGEST_COUNT,
    )
    checkpoint_every: int = option(
        50,
        "write a checkpoint every so many steps, besides the evaluation fractions",
        unit="steps",
        minimum=1,
        maximum=LARGEST_COUNT,
        affects_result=False,
    )
    keep_checkpoints: str = option(
        "latest",
        "checkpoints that stay: the latest, or also those of the five fractions",
        choices=["latest", "fractions"],
        affects_result=False,
    )
    precision: str = option("float32", "arithmetic outside routing", choices=["float32", "bf16"])
    gradient_checkpointing: bool = option(False, "recompute layers in the backward pass to save memory")
    neftune_alpha: float | None = option(
        None, "NEFTune noise on the embeddings; none: off", above=0, maximum=LARGEST_WEIGHT
    )
    divergence_factor: float = option(
        2.0,
        "end the run as diverged when a step's loss exceeds this times the loss at step 0",
        above=1,
        maximum=LARGEST_COUNT,
    )
    time_budget_s: float | None = option(
        None,
        "give the run up as not run when the pace of its first steps says that it would take longer; none: never",
        unit="seconds",
        above=0,
        maximum=LARGEST_COUNT,
        affects_result=False,
    )
    memory_limit_mb: int | None = option(
        None,
        "memory on the CPU above which the run is given up as not run; none: what is free",
        unit="MiB",
        minimum=1,
        maximum=LARGEST_MEMORY,
        affects_result=False,
    )
    device: str = option("auto", "where to train; auto takes a GPU when there is one", choices=["auto", "cpu", "cuda"])
    cpu_threads: int = option(
        1, "threads of one run on the CPU (other counts change the last digits)", minimum=1, maximum=MOST_THREADS
    )
    processes: int = option(
        1,
        "processes (a GPU each) that share every batch; under torchrun as many as it starts",
        minimum=1,
        maximum=MOST_PROCESSES,
        later=True,
    )
    deepspeed: str = option(
        "none",
        "DeepSpeed's ZeRO: processes share out the optimizer's state, in zero2 gradients too, in zero3 parameters too",
        choices=["none", "zero1", "zero2", "zero3"],
        later=True,
    )
    fsdp: str = option(
        "none",
        "PyTorch's FSDP, on GPUs alone: processes share out parameters, gradients and the optimizer's state; "
        "shard_grad_op keeps a layer's parameters whole between its forward and its backward pass",
        choices=["none", "full_shard", "shard_grad_op"],
        later=True,
    )


@dataclass
class LoggerConfig:
    """Where training figures go besides the run's folder, and what the terminal shows."""

    name: str = option("none", "also write to this logger", choices=["none", "tensorboard", "wandb"])
    project: str = option("spectra-exp", "W&B project")
    entity: str | None = option(None, "W&B user or team; none: that of the key")
    group: str | None = option(None, "W&B group; none: the study, or the run without its seed")
    tags: list[str] = option([], "W&B tags besides those of the method")
    mode: str = option(
        "offline",
        "W&B: files in the run's folder for `wandb sync`, or straight to the server",
        choices=["offline", "online"],
    )
    progress: bool = option(True, "progress bar and closing table, when standard error is a terminal")


@dataclass
class LaunchConfig:
    """How the jobs of a multirun are spread, and what happens when one fails."""

    jobs: int = option(1, "jobs at once", minimum=1, maximum=MOST_JOBS)
    per_gpu: int = option(1, "runs that share one GPU", minimum=1, maximum=SHARES)
    on_failure: str = option(
        "continue", "after a job failed: go on with the others, or start no more", choices=["continue", "stop"]
    )
    retries: int = option(0, "how often a failed job is tried again in the same launch", minimum=0, maximum=MOST_JOBS)
    view: bool = option(True, "one live table of all the jobs, when standard error is a terminal")
    until_decided: str | None = option(
        None, "METRIC:MARGIN, such as val_loss:0.02: add seeds to a study's cells until each comparison is decided"
    )
    max_seeds: int = option(10, "seeds of a cell at most, with launch.until_decided", minimum=3, maximum=MOST_LOOKED_AT)


@dataclass
class SearchConfig:
    """What hydra/sweeper=optuna looks for; how it looks is under hydra.sweeper."""

    name: str = option("", "name of the stored study and of its table, outputs/tables/search_<name>.csv")
    objectives: list[str] = option(
        [], "figures of the summary, each bettered in its own direction; several give a Pareto front"
    )
    seed: int = option(
        0, "seed of the sampler, unless hydra.sweeper.sampler.seed is given", minimum=0, maximum=LARGEST_SEED
    )


@dataclass
class DebugConfig:
    """Help with finding faults."""

    detect_anomaly: bool = option(False, "let autograd name the operation that made a NaN gradient (slow)")


@dataclass
class BaselineConfig:
    """A method of the literature as a preset over router, selection and model."""

    name: str = option("none", "which preset this is")
    label: str = option("", "how tables and figures call it; empty: its name")
    colour: str = option("", "its colour in figures, #rrggbb; empty: grey")
    sizes: dict[str, str] = option(
        {}, "sizes of the model that follow from its own E (num_experts), f (expert_size) and k (top_k), by key"
    )


@dataclass
class AblationConfig:
    """One change to the full method."""

    name: str = option("none", "which ablation this is")
    hypothesis: str = option("", "what taking the part away is expected to do")
    metric: str = option("", "the metric that taking the part away is expected to worsen; empty on the ladder")
    routers: list[str] = option([], "routers that have the part")
    requires: dict[str, Any] = option({}, "values one of which the full method must have, by key")
    differs: str = option("", "the tensor that must differ from the full method's at step 1")
    label: str = option("", "how tables and figures call it; empty: its name")
    colour: str = option("", "its colour in figures, #rrggbb; empty: grey")
    studies: list[str] = option([], "studies that it stands in, of those that take their ablations from conf/")
    only: dict[str, Any] = option({}, "settings under which alone it stands there, by key: others have it or lack it")
    same_as: str = option("", "another ablation that is the same run")
    position: int = option(99, "its place in studies and tables", minimum=0, maximum=LARGEST_COUNT)


@dataclass
class Experiment:
    """One run's resolved configuration. `choices`: the option taken in each group; `overrides`: what was typed."""

    seed: int
    force: bool
    refresh: str
    study: str | None
    outputs: str
    router: Any
    osr: Any
    selection: Any
    temperature: Any
    baseline: Any
    ablation: Any
    model: Any
    data: Any
    losses: LossesConfig
    optim: OptimConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    launch: LaunchConfig
    search: SearchConfig
    debug: DebugConfig
    plugins: list[str] = option([], "modules imported first", later=True)
    choices: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    def attention_request(self, device: str) -> AttentionRequest:
        """What decides which attention the run computes with on `device`."""
        return AttentionRequest(self.model.attention, device, self.trainer.precision, self.data.cross_document)

    def experts_kernel_request(self, device: str) -> ExpertsKernelRequest:
        """What decides how the run's experts are computed on `device`."""
        return ExpertsKernelRequest(self.model.experts_kernel, device)


def result_values(experiment: Experiment) -> dict[str, Any]:
    """Everything of the configuration that can change the result, as plain values (data paths included)."""
    return _fields_of_result(experiment, skip=LABELS)


def _fields_of_result(node: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {}
    for f in fields(node):
        if f.name in skip or f.metadata.get("affects_result") is False:
            continue
        value = getattr(node, f.name)
        if f.metadata.get("later") and value == default_of(f):
            continue
        values[f.name] = _fields_of_result(value) if is_dataclass(value) else value
    return values
