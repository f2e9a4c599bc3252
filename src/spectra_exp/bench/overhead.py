"""`spectra-exp overhead`: what routing costs in a training step, part by part, for SPECTRA and Switch (table 9)."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import timer

from spectra_exp.bench.small_run import batches_of
from spectra_exp.config.compose import load_experiment
from spectra_exp.config.verb import Verb, VerbOptions, renamed
from spectra_exp.foundations.files import write_json
from spectra_exp.foundations.options import option
from spectra_exp.foundations.parts import PREFIX
from spectra_exp.foundations.shell import DONE
from spectra_exp.runs.plan import plan

METHODS = {
    "SPECTRA (paper)": ["router=spectra", "osr=paper"],
    "SPECTRA (causal)": ["router=spectra", "osr=causal"],
    "Switch top-2": ["baseline=switch_top2"],
}
# Parts of the layer that decide where tokens go, then the others; the code names them.
ROUTING = ("sequence", "expression", "gram", "similarity", "cost", "sinkhorn", "router", "selection")
PARTS = (*ROUTING, "dispatch", "experts")
_BACKWARD = "autograd::engine::evaluate_function: "
# Reading a profile takes longer than making it.
REPEATS, WARM_UP = 6, 2
SCHEMA = 1


@dataclass
class Cost:
    """Milliseconds and floating-point operations, forward and backward, of one training step by part."""

    ms: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    flops: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, part: str, event: Any) -> None:
        """Add an event to one part."""
        self.ms[part] += (event.self_device_time_total or event.self_cpu_time_total) / 1000
        self.flops[part] += event.flops or 0


@dataclass
class Subject:
    """One method's model on one batch of the training data, and what was measured of it, a value a repeat."""

    model: Any
    batch: dict[str, torch.Tensor]
    step_ms: list[float] = field(default_factory=list)
    ms: dict[str, list[float]] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)

    def step(self) -> None:
        """One forward and backward pass."""
        self.model(input_ids=self.batch["input_ids"], labels=self.batch["labels"]).loss.backward()
        self.model.zero_grad(set_to_none=True)

    def measure(self, device: str) -> None:
        """One repeat: a plain step for its time, and a profiled one for its parts."""
        began = timer()
        self.step()
        self.step_ms.append(1000 * (timer() - began))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        with profile(activities=activities, with_flops=True) as profiled:
            self.step()
        cost = read_profile(profiled.events())
        for part in PARTS:
            if part in cost.ms:
                self.ms.setdefault(part, []).append(cost.ms[part])
        self.flops = cost.flops

    def as_json(self) -> dict[str, Any]:
        """The figures as table 9 and the hypotheses read them."""
        repeats = range(len(self.step_ms))
        routing = [sum(self.ms[part][i] for part in ROUTING if part in self.ms) for i in repeats]
        parts = {part: {"ms": ms, "flops": self.flops[part]} for part, ms in self.ms.items()}
        return {"step_ms": self.step_ms, "routing_ms": routing, "parts": parts}


def measure_all(overrides: list[str], repeats: int, console: Console) -> dict[str, Any]:
    """The figures of every method, its repeats interleaved with the others'. Raises ConfigError."""
    plans = {name: plan(load_experiment([*own, *overrides])) for name, own in METHODS.items()}
    first = next(iter(plans.values()))
    subjects = {name: _subject(planned) for name, planned in plans.items()}
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("profiling", total=(repeats + WARM_UP) * len(subjects))
        for repeat in range(-WARM_UP, repeats):
            for subject in subjects.values():
                subject.step() if repeat < 0 else subject.measure(first.device)
                bar.advance(task)
    trainer, data = first.experiment.trainer, first.experiment.data
    return {
        "schema": SCHEMA,
        "device": torch.cuda.get_device_name() if first.device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "overrides": overrides,
        "tokens": trainer.batch_size * data.sequence_length,
        "methods": {name: subject.as_json() for name, subject in subjects.items()},
    }


def _subject(planned: Any) -> Subject:
    from spectra_exp.training.build import build_model

    experiment = planned.experiment
    torch.set_num_threads(experiment.trainer.cpu_threads)
    batch = {k: v.to(planned.device) for k, v in batches_of(planned, 1)[0].items()}
    return Subject(build_model(experiment, planned.corpus).to(planned.device).train(), batch)


def read_profile(events: Any) -> Cost:
    """The cost by part from a profile's events (`torch.profiler.profile(...).events()`).

    An operation of the forward pass belongs to the innermost part around it; one of the backward pass to the part
    whose operation it is the gradient of (both carry one sequence number). Times are self times, so that nothing
    counts twice. FLOPs are the profiler's: matrix products, and additions and multiplications of tensors.
    """
    cost = Cost()
    part_of_sequence: dict[int, str] = {}
    for event in events:
        named = _around(event, PREFIX)
        if named is None:
            continue
        part = named.name.removeprefix(PREFIX)
        cost.add(part, event)
        if event.sequence_nr >= 0:
            # The outermost operation made the gradient's node; those inside it carry the same number or none.
            part_of_sequence.setdefault(event.sequence_nr, part)
    for event in events:
        node = _around(event, _BACKWARD)
        if node is not None and (part := part_of_sequence.get(node.sequence_nr)) is not None:
            cost.add(part, event)
    return cost


def _around(event: Any, prefix: str) -> Any:
    """The innermost event around this one, itself among them, whose name begins so; None where there is none."""
    while event is not None and not event.name.startswith(prefix):
        event = event.cpu_parent
    return event


@dataclass(frozen=True)
class OverheadOptions(VerbOptions):
    """What is profiled."""

    repeats: int = option(REPEATS, "steps of each method", minimum=1, maximum=10**6)
    overrides: tuple[str, ...] = ()


def profile_routing(options: OverheadOptions) -> int:
    """Write `bench/overhead.json` in the folder of outputs. Raises ConfigError."""
    # Kineto tells of every profile otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    placed = [f"outputs={options.outputs}"] if options.outputs else []
    overrides = [*options.overrides, *placed]
    outputs = Path(load_experiment(overrides).outputs)
    found = measure_all(overrides, options.repeats, Console(stderr=True))
    path = outputs / "bench" / "overhead.json"
    write_json(path, found)
    print(path)
    return DONE


main = Verb(
    "overhead",
    OverheadOptions,
    profile_routing,
    "What routing costs in a training step, part by part, for SPECTRA and Switch: table 9.",
    ("", "model=exp10 trainer.batch_size=4 repeats=20"),
)

if __name__ == "__main__":
    raise SystemExit(renamed("spectra_exp.bench.overhead", "overhead", main))
