"""`make overhead`: what routing costs in a training step, part by part, for SPECTRA and Switch (table 9).

python -m spectra_exp.bench.overhead [OVERRIDE ...], such as model=exp10 trainer.batch_size=4
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.profiler import ProfilerActivity, profile

from spectra_exp.bench.parts import PARTS, ROUTING, named_parts, read_profile
from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.data.batches import TrainingBlocks, collate
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.runs.plan import plan

METHODS = {
    "SPECTRA (paper)": ["router=spectra", "osr=paper"],
    "SPECTRA (causal)": ["router=spectra", "osr=causal"],
    "Switch top-2": ["baseline=switch_top2"],
}
# Reading a profile takes longer than making it.
REPEATS, WARM_UP = 6, 2
SCHEMA = 1


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
        started = _now(device)
        self.step()
        self.step_ms.append(1000 * (_now(device) - started))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        with named_parts(self.model), profile(activities=activities, with_flops=True) as profiled:
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
    device = next(iter(plans.values())).device
    subjects = {name: _subject(planned) for name, planned in plans.items()}
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("profiling", total=(repeats + WARM_UP) * len(subjects))
        for repeat in range(-WARM_UP, repeats):
            for subject in subjects.values():
                subject.step() if repeat < 0 else subject.measure(device)
                bar.advance(task)
    first = next(iter(plans.values())).experiment
    return {
        "schema": SCHEMA,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "overrides": overrides,
        "tokens": first.trainer.batch_size * first.data.sequence_length,
        "methods": {name: subject.as_json() for name, subject in subjects.items()},
    }


def _subject(planned: Any) -> Subject:
    from spectra_exp.training.build import build_model

    experiment = planned.experiment
    torch.set_num_threads(experiment.trainer.cpu_threads)
    size = experiment.trainer.batch_size
    blocks = TrainingBlocks(planned.corpus, seed=experiment.seed, examples_needed=size)
    batch = {k: v.to(planned.device) for k, v in collate([blocks[i] for i in range(size)]).items()}
    return Subject(build_model(experiment, planned.corpus).to(planned.device).train(), batch)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when `outputs/bench/overhead.json` is written."""
    parser = argparse.ArgumentParser(prog="python -m spectra_exp.bench.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", help="as for train.py: model=exp10 trainer.batch_size=4")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="steps of each method (default: %(default)s)")
    options = parser.parse_args(arguments)
    prepare_environment()
    # Kineto tells of every profile otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    try:
        if options.repeats < 1:
            raise SpectraError(f"--repeats: {options.repeats} was given; give at least 1")
        outputs = Path(load_experiment(options.overrides).outputs)
        found = measure_all(options.overrides, options.repeats, Console(stderr=True))
        path = outputs / "bench" / "overhead.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    except SpectraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
