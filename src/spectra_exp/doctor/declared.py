"""What a model's configuration declares to be otherwise in training than in evaluation, and passes without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

from spectra_exp.doctor.examined import Examined
from spectra_exp.doctor.options import declared_noise, is_noise
from spectra_exp.moe.context import RoutingContext
from spectra_exp.routing.selection import rule_in_force


def declared_rules(x: Examined) -> list[str]:
    """Where the configuration has two rules of routing, what each is; empty for a stock model."""
    if not x.own:
        return []
    settings, router = x.model.settings, x.layers[0].router
    training, inference = (rule_in_force(settings.selection, is_training).name for is_training in (True, False))
    told = [f"selection.rule={training} in training, {inference} in evaluation (selection.at_inference=false)"]
    return [
        *(told if training != inference else []),
        *([router.two_rules.format(router=settings.router, osr=settings.osr)] if router.two_rules else []),
    ]


@contextmanager
def without_declared(x: Examined) -> Iterator[dict[str, Any]]:
    """A block in which nothing that is declared differs; gives the arguments that a pass in training mode then takes.

    Noise is off, and evaluation selects as training does; a router whose scores have two rules takes that of inference.
    """
    rules = [(layer.settings.selection, "at_inference", True) for layer in x.layers]
    with without_declared_noise(x.model), _set(rules):
        two_rules = x.own and x.layers[0].router.two_rules
        yield {"routing": RoutingContext(training_rule=False)} if two_rules else {}


@contextmanager
def without_declared_noise(model: PreTrainedModel) -> Iterator[None]:
    """A block in which noise is off in all modules that keep an option's value."""
    values = set(declared_noise(model).values())
    off = [
        (holder, name, 0.0)
        for module in model.modules()
        for holder in (module, getattr(module, "config", None))
        for name, value in getattr(holder, "__dict__", {}).items()
        if (is_noise(name, value) or (name == "p" and "Dropout" in type(holder).__name__)) and value in values
    ]
    with _set(off):
        yield


@contextmanager
def _set(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in values]
    for holder, name, value in values:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)
