"""Time and floating-point operations of each part of a routed layer, read from a profile of whole training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from torch.profiler import record_function

from spectra_exp.moe import layer as layer_module
from spectra_exp.moe.model import SpectraMoeForCausalLM
from spectra_exp.routing.routers import spectra as spectra_module

PREFIX = "part:"
ROUTER, DISPATCH, EXPERTS, SELECTION = "router", "dispatch", "experts", "selection"
# Parts of the layer that decide where tokens go.
ROUTING = ("sequence", "expression", "gram", "similarity", "cost", "sinkhorn", ROUTER, SELECTION)
PARTS = (*ROUTING, DISPATCH, EXPERTS)
_BACKWARD = "autograd::engine::evaluate_function: "


@dataclass
class Cost:
    """Milliseconds and floating-point operations, forward and backward, of one training step by part."""

    ms: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)

    def add(self, part: str, ms: float, flops: float) -> None:
        """Add to one part."""
        self.ms[part] = self.ms.get(part, 0.0) + ms
        self.flops[part] = self.flops.get(part, 0.0) + flops


@contextmanager
def named_parts(model: SpectraMoeForCausalLM) -> Iterator[None]:
    """A block in which a profile can tell the parts of every routed layer apart; the innermost name counts."""
    with ExitStack() as stack:
        for owner, name, part in _places(model):
            stack.enter_context(patch.object(owner, name, _named(getattr(owner, name), part)))
        yield


def _places(model: SpectraMoeForCausalLM) -> Iterator[tuple[Any, str, str]]:
    """Owner, attribute and part of each function that makes up a part."""
    yield layer_module, "assignment_weights", SELECTION
    yield spectra_module, "gram", "gram"
    yield spectra_module, "osr_cost", "cost"
    for routed in model.routed_layers:
        router = routed.router
        yield routed, "select", SELECTION
        yield routed.experts, "forward", DISPATCH
        yield routed.experts, "_expert", EXPERTS
        yield routed.experts, "_grouped", EXPERTS
        yield router, "forward", ROUTER
        if isinstance(router, spectra_module.SpectraRouter):
            yield router.sequence, "forward", "sequence"
            yield router.expression, "raw", "expression"
            yield router.expression, "finish", "expression"
            yield router.similarity, "forward", "similarity"
            yield router, "_plan", "sinkhorn"


def _named(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(PREFIX + part):
            return function(*arguments, **named)

    return call


def read_profile(events: Any) -> Cost:
    """The cost by part from a profile's events (`torch.profiler.profile(...).events()`), made within `named_parts`.

    An operation of the forward pass belongs to the innermost part around it; one of the backward pass to the part
    whose operation it is the gradient of (both carry one sequence number). Times are self times, so that nothing
    counts twice. FLOPs are the profiler's: matrix products, and additions and multiplications of tensors.
    """
    cost, part_of_sequence = Cost(), {}
    for event in events:
        part = _part(event)
        if part is None:
            continue
        cost.add(part, _self_ms(event), event.flops or 0)
        if event.sequence_nr >= 0:
            # The outermost operation made the gradient's node; those inside it carry the same number or none.
            part_of_sequence.setdefault(event.sequence_nr, part)
    for event in events:
        node = _backward_node(event)
        if node is not None and (part := part_of_sequence.get(node.sequence_nr)) is not None:
            cost.add(part, _self_ms(event), event.flops or 0)
    return cost


def _part(event: Any) -> str | None:
    while event is not None:
        if event.name.startswith(PREFIX):
            return event.name.removeprefix(PREFIX)
        event = event.cpu_parent
    return None


def _backward_node(event: Any) -> Any:
    """The gradient's node that the event belongs to, None in the forward pass."""
    while event is not None:
        if event.name.startswith(_BACKWARD):
            return event
        event = event.cpu_parent
    return None


def _self_ms(event: Any) -> float:
    return (event.self_device_time_total or event.self_cpu_time_total) / 1000
