"""What a run of the tiny default costs besides its model: Trainer, recording, evaluation, logging."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from torch.utils.benchmark import set_torch_threads
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from spectra_exp.bench.registry import Figure, benchmark
from spectra_exp.bench.timing import interleaved, ratio
from spectra_exp.config.compose import load_experiment
from spectra_exp.data.batches import Example, collate
from spectra_exp.runs.plan import plan
from spectra_exp.training.callbacks.cadence import Cadence
from spectra_exp.training.callbacks.settle import settle
from spectra_exp.training.fractions import fraction_steps
from spectra_exp.training.session import Session

# Steps that are made and those of them that warm up; the run's own number is what their cost is multiplied by.
STEPS, WARMING = 16, 3
# Steps of training after which one batch is settled over.
ONE_BATCH = 5
ROUNDS = 5
FRACTION_EVALUATIONS = 6
OVERRIDES = ["logger.progress=false"]
# Eight times as many experts as the default; what one of them computes plays no part.
MANY_EXPERTS = ["model.num_experts=64", "model.expert_size=16", "router.sequence=linear"]


class _StepClock(TrainerCallback):
    """Processor time from the begin of each step to the begin of the next, and of `bare` between any two."""

    def __init__(self, bare: Callable[[], object]) -> None:
        self.bare = bare
        self.times: dict[str, list[float]] = {"step": [], "bare": []}
        self._began: float | None = None

    def on_step_begin(self, *arguments: Any, **named: Any) -> None:
        if self._began is not None:
            self.times["step"].append(process_time() - self._began)
            began = process_time()
            self.bare()
            self.times["bare"].append(process_time() - began)
        self._began = process_time()


@benchmark
def run(outputs: Path) -> list[Figure]:
    """A tiny run's overhead over its model's passes and updates; evaluation and recording as shares of the run."""
    (outputs / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outputs / "bench") as scratch, set_torch_threads(1):
        session = _session(scratch, OVERRIDES)
        subjects = _subjects(session)
        subjects["recording, many experts"] = _recording(_session(scratch, [*OVERRIDES, *MANY_EXPERTS]))
        times = interleaved(subjects, ROUNDS, process_time)
        loop = _training_loop(scratch, subjects["bare"])
    # All in multiples of the model's passes and update.
    cost = {name: ratio(times, name, "bare") for name in subjects}
    steps = session.max_steps
    settling = session.model.routed_layers[0].router.settle_steps(steps) * cost["settling"]
    cadence = FRACTION_EVALUATIONS * cost["evaluation"]
    # The training rule, SPECTRA's two other rules of inference, and whether each rule sees the future.
    final = 3 * cost["another rule"] + 2 * cost["causality"]
    every = session.experiment.trainer.checkpoint_every
    checkpoints = len({*fraction_steps(steps), *range(every, steps + 1, every)}) * loop["checkpoint"]
    whole = steps * loop["step"] + settling + cadence + final + checkpoints
    return [
        Figure("run_overhead", 100 * (whole / steps - 1), "% over the model's passes and updates", 25.0),
        Figure("run_trainer_overhead", 100 * (loop["step"] - 1), "% of a step: Trainer, recording, logging"),
        Figure("run_checkpoints", 100 * checkpoints / whole, "% of a run"),
        Figure("run_evaluation", 100 * cadence / whole, "% of a run: evaluations at the cadence", 10.0),
        Figure("run_final_measurements", 100 * final / whole, "% of a run: other rules, causality"),
        Figure("run_settling", 100 * settling / whole, "% of a run: potentials after the last step"),
        Figure("run_recording", 100 * cost["recording"], "% of a step", 2.0),
        Figure("run_recording_64_experts", 100 * cost["recording, many experts"], "% of the same step", 2.0),
        Figure("run_bare_step", 1000 * statistics.median(times["bare"]), "CPU ms"),
    ]


def _session(folder: str, overrides: list[str]) -> Session:
    transformers_logging.disable_progress_bar()
    planned = plan(load_experiment([*overrides, f"outputs={folder}"]))
    return Session(planned.experiment, planned.corpus, planned.folder, planned.device)


def _subjects(session: Session) -> dict[str, Callable[[], object]]:
    model = session.model.train()
    batch = _batch(session)
    optimizer = session.trainer.create_optimizer()

    def bare() -> None:
        model(input_ids=batch["input_ids"], labels=batch["labels"], return_logits=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        "bare": bare,
        "recording": _recording(session),
        "evaluation": lambda: session.evaluate(1),
        "another rule": lambda: session.evaluator.run(model, training_rule=True),
        "settling": lambda: settle(model, session._route_training_batch, ONE_BATCH),
        "causality": lambda: session.evaluator.causality(model, training_rule=False),
    }


def _batch(session: Session) -> Example:
    return collate([session.blocks[i] for i in range(session.experiment.trainer.batch_size)])


def _recording(session: Session) -> Callable[[], object]:
    """What is kept of one step's batch, the step itself made beforehand."""
    batch, recorder = _batch(session), session.recorder
    output = session.model(input_ids=batch["input_ids"], labels=batch["labels"], return_logits=False)

    def recording() -> None:
        recorder.begin_step()
        recorder.take_batch(batch["input_ids"], output)
        recorder.end_step()

    return recording


def _training_loop(folder: str, bare: Callable[[], object]) -> dict[str, float]:
    """A step of the real loop without evaluations and checkpoints, and one checkpoint, in multiples of `bare`."""
    clock = _StepClock(bare)
    session = _session(folder, [*OVERRIDES, f"trainer.max_steps={STEPS}", "seed=1", "osr.settle_steps=0"])
    session.trainer.remove_callback(Cadence)
    session.trainer.add_callback(clock)
    session.trainer.train()
    saving = interleaved(
        {"bare": bare, "checkpoint": lambda: session.trainer._save_checkpoint(session.model, None)},
        ROUNDS,
        process_time,
    )
    step = ratio({name: seconds[WARMING:] for name, seconds in clock.times.items()}, "step", "bare")
    return {"step": step, "checkpoint": ratio(saving, "checkpoint", "bare")}
