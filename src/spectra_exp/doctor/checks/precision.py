"""Checks of low precision: decisions that rounding turns, and selection biases that it eats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spectra_exp.doctor.examined import DoesNotApply, Examined
from spectra_exp.doctor.keeping import kept, moved, state_of
from spectra_exp.doctor.registry import FAULT, OK, Outcome, check

# A router in bfloat16 may turn this many times as many decisions as rounding turns by what it is given, and so many
# standard deviations of such a count more.
TIMES, DEVIATIONS = 3.0, 4.0
LOW = torch.bfloat16
# In names of parameters that are such biases; buffers that are called biases are.
SELECTION = ("correction", "expert_bias")


@check(
    "Precision: bfloat16 against float32",
    figure="share of tokens whose experts are others in bfloat16 than in float32, in the worst layer",
    meaning="The router loses more in bfloat16 than what it is given does: training and inference route differently.",
    advice="Compute the router in float32 from float32 weights (scores, bias, softmax and top-k).",
    order=70,
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
    routers = [layer.router for layer in x.layers] or [w.block.router for w in x.watches if w.block.router is not None]
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


def selection_biases(x: Examined) -> dict[str, tuple[int, Tensor]]:
    """Biases that move the selection and are not trained by a gradient: by name, the layer's place and the tensor."""
    found = {}
    for place, watch in enumerate(x.watches):
        holder, num_experts = watch.block.holder, watch.num_experts
        named = [(n, p) for n, p in holder.named_parameters() if any(part in n for part in SELECTION)]
        for name, tensor in [*holder.named_buffers(), *named]:
            if (
                "bias" in name
                and tensor.is_floating_point()
                and tensor.shape[-1:] in ((num_experts,), (num_experts + 1,))
            ):
                found[f"{watch.name}.{name}"] = (place, tensor)
    for place, layer in enumerate(x.layers):
        for name, tensor in layer.router.named_buffers():
            if "bias" in name and tensor.shape[-1:] == (layer.settings.num_experts,):
                found[f"routed layer {layer.layer}.{name}"] = (place, tensor)
    if not found:
        raise DoesNotApply("no layer has a selection bias")
    return found


@check(
    "Selection bias: precision",
    figure="selection biases that are not float32 after model.to(bfloat16)",
    meaning="Updates of a thousandth vanish in bfloat16 once the bias is near 1: balancing stops, or is lost.",
    advice="Keep the bias float32 in to() and in the checkpoint (_keep_in_fp32_modules_strict; override _apply).",
    order=50,
)
def bias_precision(x: Examined) -> Outcome:
    """The dtype of each bias once the whole model is cast."""
    names = selection_biases(x)
    with kept(x.model):
        x.model.to(LOW)
        cast = [name for name, (_, tensor) in selection_biases(x).items() if tensor.dtype != torch.float32]
    return Outcome.within(len(cast), 0, ", ".join(cast[:2]), f"{len(names)} biases")


@check(
    "Selection bias: moved in training alone",
    figure="relative movement of a selection bias by passes in evaluation mode",
    meaning="Evaluation changes the model: its bias answers the load of the evaluation's text.",
    advice="Move the bias once after each optimizer step, in training mode alone.",
    order=51,
)
def bias_still(x: Examined) -> Outcome:
    """State before and after a pass in evaluation mode."""
    selection_biases(x)
    before = state_of(x.model)
    x.run(x.ids_BS)
    changes = {name: by for name, by in moved(before, state_of(x.model)).items() if "bias" in name}
    worst = max(changes, key=changes.__getitem__, default="")
    return Outcome.within(changes.get(worst, 0.0), 0.0, worst)


@check(
    "Selection bias: not in the weights",
    figure="largest change of a combine weight of tokens that keep their experts when the bias is moved",
    meaning="The bias weighs experts' outputs: what should only balance the load changes the function.",
    advice="Add the bias for the top-k alone, and gather the weights from the scores without it.",
    order=52,
)
def bias_outside_weights(x: Examined) -> Outcome:
    """Each layer's bias is moved a little at one expert; tokens that keep their experts must keep their weights."""
    if x.own:
        raise DoesNotApply("this project's routers keep it apart by construction")
    worst, where = 0.0, ""
    before = [(one.chosen_ME, one.weights_ME) for one in x.run(x.ids_BS).seen]
    for name, (place, bias) in selection_biases(x).items():
        values = bias.data.clone()
        bias.data.reshape(-1)[0] += 0.05
        after = x.run(x.ids_BS).seen[place]
        bias.data.copy_(values)
        chosen_ME, weights_ME = before[place]
        same_M = (after.chosen_ME == chosen_ME).all(1) & chosen_ME[:, 0]
        if same_M.any():
            by = float((after.weights_ME - weights_ME)[same_M].abs().max())
            worst, where = max((worst, where), (by, name))
    return Outcome(OK if worst <= 1e-4 else FAULT, worst, 1e-4, place=where if worst > 1e-4 else "")
