"""A small run: its plan and its first batches, with whose model devices and ways are compared."""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor

from spectra_exp.config.compose import load_experiment
from spectra_exp.data.batches import TrainingBlocks, collate
from spectra_exp.routing.base import router_class
from spectra_exp.runs.plan import Plan, plan

# Noise is drawn on the device, and devices draw differently.
NOISE = ("jitter", "noise")
SMALL = (
    "model.num_layers=2",
    "data.sequence_length=64",
    "trainer.batch_size=4",
    "model.dropout=0",
    "optim=adamw",
    "debug=smoke",
)


def small_plan(router: str, steps: int) -> Plan:
    """The plan of a small run of a router without noise, on the CPU."""
    named = {f.name for f in fields(router_class(router).Config)}
    quiet = [f"router.{name}=0" for name in NOISE if name in named]
    rule = router_class(router).selections()[0]
    lines = [
        *SMALL,
        f"router={router}",
        f"selection={rule}",
        f"trainer.max_steps={steps}",
        "trainer.device=cpu",
        *quiet,
    ]
    return plan(load_experiment(lines))


def batches_of(planned: Plan, number: int) -> list[dict[str, Tensor]]:
    """The first batches of the run's training text."""
    size = planned.experiment.trainer.batch_size
    blocks = TrainingBlocks(planned.corpus, seed=planned.experiment.seed, examples_needed=number * size)
    return [collate([blocks[i] for i in range(n * size, (n + 1) * size)]) for n in range(number)]
