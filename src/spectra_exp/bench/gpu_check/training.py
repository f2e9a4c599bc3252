"""A few steps of a small model on one device, and how two such trainings differ.

Letters: N real tokens, E experts, L routed layers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.runs.plan import Plan
from spectra_exp.training.build import build_model
from spectra_exp.training.optimizers import make_optimizer, rate_factor

# Scores nearer than this, as a share of the larger, are a tie that rounding may break either way.
TIE = 1e-3
# Of a weight of float32, as a share of it.
LAST_BIT = 2**-23
# By this share losses of two trainings that should be the same may differ in float32.
LOSS_GAP = 1e-3


@dataclass
class Training:
    """losses: one a step. chosen_LNE, probs_LNE: of the first pass, on the CPU; no probs of a router without any."""

    losses: list[float]
    chosen_LNE: list[Tensor]
    probs_LNE: list[Tensor | None]


class Trainee:
    """The model of a plan on a device with its optimizer, which is made after `arrange(model)`."""

    def __init__(self, planned: Plan, device: str, arrange: Callable[[SpectraMoeForCausalLM], object] = id):
        self.experiment, self.device, self.steps = planned.experiment, device, 0
        self.model: SpectraMoeForCausalLM = build_model(planned.experiment, planned.corpus).to(device).train()
        arrange(self.model)
        self.optimizer = make_optimizer(self.model, planned.experiment.optim)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, batch: dict[str, Tensor]) -> Any:
        """Make one optimizer step; the output of its forward pass."""
        total = self.experiment.trainer.max_steps
        factor = rate_factor(self.steps, total, self.experiment.optim)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.model.set_step(self.steps)
        moved = {name: values.to(self.device) for name, values in batch.items()}
        output = self.model(input_ids=moved["input_ids"], labels=moved["labels"], return_logits=False)
        output.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_optimizer_step(factor)
        self.steps += 1
        return output


def train(
    planned: Plan,
    batches: list[dict[str, Tensor]],
    device: str,
    arithmetic: AbstractContextManager[Any],
    arrange: Callable[[SpectraMoeForCausalLM], object] = id,
) -> Training:
    """A step for each batch, from the plan's initial weights."""
    trainee, found = Trainee(planned, device, arrange), Training([], [], [])
    for batch in batches:
        with arithmetic:
            output = trainee.step(batch)
        if not found.losses:
            records = [output.routing.records[layer.layer] for layer in trainee.model.routed_layers]
            found.chosen_LNE = [record.chosen_NE.cpu() for record in records]
            found.probs_LNE = [None if r.probs_NE is None else r.probs_NE.float().cpu() for r in records]
        found.losses.append(float(output.lm_loss.detach()))
    return found


def rounded_once_more(model: SpectraMoeForCausalLM) -> None:
    """Change each weight by half of its last bit or so, up or down."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + LAST_BIT * (torch.rand(weight.shape, generator=generator) * 2 - 1))


def flip_rate(a: Training, b: Training) -> float:
    """Share of the tokens and layers of the first pass whose experts differ."""
    flips = [(one != other).any(1) for one, other in zip(a.chosen_LNE, b.chosen_LNE, strict=True)]
    return float(torch.cat(flips).float().mean())


def flips_beyond_ties(a: Training, b: Training) -> int:
    """Tokens and layers of the first pass whose experts differ though their probabilities in `a` do not tie.

    Only of the first layer in which anything differs: what comes after it has other inputs.
    """
    for one_NE, other_NE, probs_NE in zip(a.chosen_LNE, b.chosen_LNE, a.probs_LNE, strict=True):
        differs_NE = one_NE != other_NE
        differs_N = differs_NE.any(1)
        if not differs_N.any():
            continue
        if probs_NE is None:
            return int(differs_N.sum())
        largest_N = probs_NE.masked_fill(~differs_NE, -torch.inf).amax(1)[differs_N]
        smallest_N = probs_NE.masked_fill(~differs_NE, torch.inf).amin(1)[differs_N]
        return int((largest_N - smallest_N > TIE * largest_N).sum())
    return 0


def largest_gap(a: Training, b: Training) -> float:
    """Largest difference of the losses of a step, as a share of the first's."""
    return max(abs(x - y) / abs(x) for x, y in zip(a.losses, b.losses, strict=True))
