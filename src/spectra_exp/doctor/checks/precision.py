"""The check of low precision: decisions that rounding turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spectra_exp.doctor.examined import EVALUATION, Examined
from spectra_exp.doctor.keeping import kept
from spectra_exp.doctor.registry import Outcome, check

# A router in bfloat16 may turn this many times as many decisions as rounding turns by what it is given, and so many
# standard deviations of such a count more.
TIMES, DEVIATIONS = 3.0, 4.0
LOW = torch.bfloat16


@check(
    "Precision: bfloat16 against float32",
    figure="share of tokens whose experts are others in bfloat16 than in float32, in the worst layer",
    ok_if=f"at most {TIMES:g} times the share where all but routers is rounded, and {DEVIATIONS:g} standard deviations",
    meaning="The router loses more in bfloat16 than what it is given does: training and inference route differently.",
    advice="Compute the router in float32 from float32 weights (scores, bias, softmax and top-k).",
    order=70,
    rests_on=EVALUATION,
)
def precision(x: Examined) -> Outcome:
    """The model in bfloat16, against one in which everything but the routers is rounded to bfloat16."""
    with kept(x.model), _in_low_precision(x):
        low = x.run(x.ids_BS)
    with kept(x.model), _all_but_routers_rounded(x):
        rounded = x.run(x.ids_BS)
    shares, floors = x.flips(low.chosen_LBSE, x.plain.chosen_LBSE), x.flips(rounded.chosen_LBSE, x.plain.chosen_LBSE)
    tokens = x.ids_BS.numel()
    limits = [TIMES * floor + DEVIATIONS * ((floor + 1 / tokens) / tokens) ** 0.5 for floor in floors]
    worst = max(range(len(shares)), key=lambda i: shares[i] - limits[i])
    note = ", ".join(f"{s:.1%} ({f:.1%})" for s, f in zip(shares[:8], floors[:8], strict=True))
    place = x.names[worst]
    return Outcome.within(
        shares[worst], limits[worst], place, f"by layer (rounding alone): {note}", "what rounding gives"
    )


@contextmanager
def _in_low_precision(x: Examined) -> Iterator[None]:
    """The model in bfloat16 as it is used: a stock one cast, ours by autocast over float32 weights."""
    if x.own:
        with torch.autocast(x.ids_BS.device.type, LOW):
            yield
        return
    x.model.to(LOW)
    yield


@contextmanager
def _all_but_routers_rounded(x: Examined) -> Iterator[None]:
    """The float32 model with weights and outputs of all modules, those of routers apart, rounded to bfloat16."""
    of_routers = {id(p) for parameters in x.routers for p in parameters}
    routers: list[nn.Module] = [layer.router for layer in x.layers]
    routers = routers or [w.block.router for w in x.watches if w.block.router is not None]
    inside = {id(module) for router in routers for module in router.modules()}
    for parameter in x.model.parameters():
        if id(parameter) not in of_routers:
            parameter.data = _rounded(parameter.data)
    handles = [m.register_forward_hook(_round_output) for m in x.model.modules() if id(m) not in inside]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(LOW).to(tensor.dtype) if tensor.is_floating_point() else tensor


def _round_output(module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return _rounded(output)
    if type(output) is tuple:
        return tuple(_rounded(one) if isinstance(one, Tensor) else one for one in output)
    return None
