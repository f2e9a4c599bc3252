"""Checks of the auxiliary loss: whether it is on, what it is made of, where its gradient goes, how it adds up."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectra_exp.doctor.checks.bias import has_biases
from spectra_exp.doctor.examined import EVALUATION, SEED, TRAINING, DoesNotApply, Examined, Pass
from spectra_exp.doctor.keeping import kept, moved, state_of
from spectra_exp.doctor.options import switched_off
from spectra_exp.doctor.registry import DOUBTFUL, FAULT, OK, Outcome, check

# Relative differences of a loss in float32.
CLOSE = 1e-4
# How far from 1 the ratio of two weights may be.
EVEN = 1e-2
# Relative to the loss, what is left where two equal numbers are added and taken away.
ROUNDING = 1e-6


@check(
    "Padding in loads and losses",
    figure="relative change of the auxiliary loss, or of a load that the model keeps, by padding",
    ok_if=f"at most {CLOSE:g}",
    meaning="Padding counts as tokens: the balance that is trained for is that of padding, and changes with the batch.",
    advice="Give attention_mask to the loss and to whatever counts, and leave masked tokens out there.",
    order=30,
    rests_on=EVALUATION,
)
def padding(x: Examined) -> Outcome:
    """The auxiliary loss, and the loads that a training pass leaves in the model, with padding and without."""
    plain, loads = _auxiliary(x, x.ids_BS, None), _loads(x, x.ids_BS, None)
    # Loads that noise moves say nothing of padding.
    loads = {
        name: load for name, load in loads.items() if name not in moved(loads, _loads(x, x.ids_BS, None, SEED + 1))
    }
    if plain is None and not loads:
        raise DoesNotApply("the model has no auxiliary loss, and keeps no loads")
    worst, place = 0.0, ""
    for side in ("left", "right"):
        ids_BS, mask_BS, _ = x.padded(side == "left")
        changes = {}
        if plain is not None:
            auxiliary = _auxiliary(x, ids_BS, mask_BS)
            assert auxiliary is not None
            changes["auxiliary loss"] = abs(auxiliary - plain) / max(abs(plain), 1e-12)
        padded = _loads(x, ids_BS, mask_BS)
        changes |= moved(loads, {name: padded[name] for name in loads})
        for name, by in changes.items():
            worst, place = max((worst, place), (by, f"{name}, padded on the {side}"))
    return Outcome.within(worst, CLOSE, place)


def _auxiliary(x: Examined, ids_BS: Tensor, mask_BS: Tensor | None) -> float | None:
    """The auxiliary loss in evaluation mode, without noise, or else in training mode; None where there is none."""
    for training in (False, True):
        with kept(x.model), torch.no_grad():
            x.model.train(training)
            one = x.loss_pass(ids_BS, mask_BS, aux=True, use_cache=False)
        try:
            return float(x.auxiliary(one))
        except DoesNotApply:
            continue
    return None


def _loads(x: Examined, ids_BS: Tensor, mask_BS: Tensor | None, seed: int = SEED) -> dict[str, Tensor]:
    """What has a value for each expert and is moved by a forward pass in training mode, after it."""
    with kept(x.model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = state_of(x.model)
        x.model.train()
        with torch.no_grad():
            x.loss_pass(ids_BS, mask_BS, aux=True, use_cache=False)
        after = state_of(x.model)
    return {name: after[name] for name in moved(before, after) if x.is_of_experts(after[name])}


@check(
    "Auxiliary loss: on",
    figure="what the auxiliary loss adds to the training loss as the model is configured, nats",
    ok_if=f"not 0 within {ROUNDING:g} of the loss",
    meaning="The configuration names an auxiliary loss, but training does not add it: nothing balances the load.",
    advice="Set config.output_router_logits=True before training; or the coefficient to 0, where no loss is meant.",
    order=40,
    rests_on=TRAINING,
)
def auxiliary_on(x: Examined) -> Outcome:
    """The loss as configured against the loss without; whether asking for the auxiliary loss would add something."""
    off = "" if x.own else switched_off(x.model)
    if off:
        return _switched_off(x, off)
    with x.training():
        if x.own:
            auxiliary = x.auxiliary(x.loss_pass(x.ids_BS, use_cache=False))
            return Outcome(OK, float(auxiliary.detach()), 0.0, "must not be")
        asked = _added(x)
        adds = _added(x, as_configured=True) if x.asks else asked
    if adds:
        return Outcome(OK, adds, 0.0, "must not be")
    note = f"asking for it would add {asked:.3g}" if asked else "it is computed, and added nowhere"
    return Outcome(FAULT, adds, 0.0, "must not be", "config.output_router_logits" if x.asks else "", note)


def _switched_off(x: Examined, off: str) -> Outcome:
    with x.training():
        adds = _added(x, as_configured=True) if x.asks else 0.0
    if adds:
        note = f"{off}, and yet it is added: the model read its coefficient before"
        return Outcome(FAULT, adds, 0.0, "must be", note=note)
    in_its_place = "selection biases are what balances" if has_biases(x) else "no selection bias balances in its place"
    raise DoesNotApply(f"{off}: the auxiliary loss is switched off, and {in_its_place}")


@check(
    "Auxiliary loss: gradient",
    figure="routers without a gradient of the auxiliary loss",
    ok_if="0",
    meaning="The auxiliary loss is a number that trains nothing: it was detached on its way from these routers.",
    advice="Compute it of the logits with their graph, of every sparse layer.",
    order=41,
)
def auxiliary_gradient(x: Examined) -> Outcome:
    """The gradient of the auxiliary loss alone at each router."""
    with x.training():
        auxiliary = x.auxiliary(x.loss_pass(x.ids_BS, aux=True, use_cache=False))
        norms = router_gradients(x, auxiliary)
    frozen = frozen_routers(x)
    idle = [name for name, norm in zip(x.names, norms, strict=True) if not norm and name not in frozen]
    note = "; ".join([f"routers: {len(norms)}", *said_of_frozen(frozen)])
    if frozen and not idle:
        return Outcome(DOUBTFUL, len(frozen), 0, place=", ".join(frozen[:3]), note=note)
    return Outcome.within(len(idle), 0, ", ".join(idle[:3]), note)


def frozen_routers(x: Examined) -> list[str]:
    """The layers whose router has parameters, none of which is trained."""
    named = zip(x.names, x.routers, strict=True)
    return [name for name, parameters in named if parameters and not any(p.requires_grad for p in parameters)]


def said_of_frozen(layers: Sequence[str]) -> list[str]:
    """Why no gradient reaches these layers' routers, in a sentence; empty for none."""
    return [f"the router of {', '.join(layers[:3])} is frozen (requires_grad=False)"] if layers else []


def router_gradients(x: Examined, loss: Tensor) -> list[float]:
    """The norm of the gradient of a loss at each router, whose graph is kept; 0 where there is none."""
    flat = [p for parameters in x.routers for p in parameters if p.requires_grad]
    if not flat or not loss.requires_grad:
        return [0.0] * len(x.routers)
    found = torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True)
    squares = {id(p): float(g.float().square().sum()) for p, g in zip(flat, found, strict=True) if g is not None}
    return [sum(squares.get(id(p), 0.0) for p in parameters) ** 0.5 for parameters in x.routers]


@check(
    "Auxiliary loss: of each layer",
    figure="relative difference from the nearest known form",
    ok_if=f"at most {CLOSE:g}, of the form by layer with one softmax",
    meaning="The loss is not that of each layer by one softmax: over concatenated layers imbalances of "
    "different layers cancel, and of a second softmax hardly any gradient is left.",
    advice="Compute E sum f P of each layer from softmax(logits), once, and average over layers.",
    order=42,
)
def auxiliary_form(x: Examined) -> Outcome:
    """Which form of the load-balancing loss E sum f P explains the model's own."""
    if x.own:
        raise DoesNotApply("the terms of this project's routers are kept for each layer")
    with x.training(), torch.no_grad():
        one = x.loss_pass(x.ids_BS, aux=True, use_cache=False)
    value = float(x.auxiliary(one))
    forms = _forms(one)
    errors = {
        name: min(abs(value - form * scale) / abs(value) for scale in _scales(one)) for name, form in forms.items()
    }
    near = [name for name, error in errors.items() if error <= CLOSE]
    least = min(errors.values())
    if not near:
        return Outcome(DOUBTFUL, least, CLOSE, note="of no form that is known here")
    right = "each layer, one softmax"
    if right in near:
        other = f"; also {near[1]}: this batch does not tell them apart" if len(near) > 1 else ""
        return Outcome(OK, errors[right], CLOSE, note=right + other)
    return Outcome(FAULT, errors[right], CLOSE, place=near[0])


def _forms(one: Pass) -> dict[str, float]:
    """E sum f P by each form, by what it is called; the first that fits counts."""
    logits = [seen.logits_MC for seen in one.seen if seen.logits_MC is not None]
    if len(logits) < len(one.seen):
        raise DoesNotApply("the routers' logits cannot be read")
    loads = [seen.chosen_ME.float() for seen in one.seen]
    once = [found[:, : load.shape[1]].softmax(-1) for found, load in zip(logits, loads, strict=True)]
    twice = [shares.softmax(-1) for shares in once]
    largest = [_of_largest(shares, seen.top_k) for shares, seen in zip(once, one.seen, strict=True)]
    found = {}
    for of, counted in (("", loads), (", of the largest logits in place of the executed experts", largest)):
        for times, shares in (("one softmax", once), ("softmax of a softmax", twice)):
            found[f"each layer, {times}{of}"] = _mean_loss(counted, shares)
            found[f"concatenated layers, {times}{of}"] = _mean_loss([torch.cat(counted)], [torch.cat(shares)])
    return found


def _of_largest(shares_ME: Tensor, top_k: int) -> Tensor:
    return torch.zeros_like(shares_ME).scatter(1, shares_ME.topk(top_k, dim=1).indices, 1.0)


def _mean_loss(loads: Sequence[Tensor], shares: Sequence[Tensor]) -> float:
    each = [
        load.shape[1] * float((load.mean(0) * share.mean(0)).sum()) for load, share in zip(loads, shares, strict=True)
    ]
    return sum(each) / len(each)


def _scales(one: Pass) -> list[float]:
    """Factors by which implementations differ: the experts per token, and a sum over layers in place of a mean."""
    top_k, layers = max(seen.top_k for seen in one.seen), len(one.seen)
    return [1.0, 1 / top_k, layers, layers / top_k]


@check(
    "Auxiliary loss: accumulation",
    figure="weight of the auxiliary loss with 2 micro-batches a step, or 2 processes, over that with one",
    ok_if=f"1 within {EVEN:g}",
    meaning="The language-model loss is divided by the tokens of the whole step, the auxiliary loss is not: its weight "
    "grows with accumulation and with processes.",
    advice="Divide the coefficient by micro-batches x processes, or let the Trainer divide the whole loss "
    "(model.accepts_loss_kwargs = False).",
    order=43,
    rests_on=TRAINING,
)
def auxiliary_accumulation(x: Examined) -> Outcome:
    """What the auxiliary loss adds where the Trainer says that a step has twice the tokens of the batch."""
    with x.training():
        x.auxiliary(x.loss_pass(x.ids_BS, aux=True, use_cache=False))
        if not _takes_number_of_tokens(x):
            return Outcome(OK, 1.0, 1.0, "expected", note="the Trainer divides the whole loss")
        parts, tokens = _parts(x), x.ids_BS[:, 1:].numel()
        once, halved = (_added(x, num_items_in_batch=torch.tensor(n)) for n in (tokens, parts * tokens))
    if not once:
        raise DoesNotApply("the auxiliary loss has no weight")
    factor = parts * halved / once
    status = OK if abs(factor - 1) <= EVEN else FAULT
    return Outcome(status, factor, 1.0, "expected", "" if status == OK else f"a step of {parts} micro-batches")


def _takes_number_of_tokens(x: Examined) -> bool:
    """Whether the Trainer would give the model the tokens of the whole step, as it decides it."""
    accepts = getattr(x.model, "accepts_loss_kwargs", None)
    if accepts is not None:
        return bool(accepts)
    parameters = inspect.signature(type(x.model).forward).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _parts(x: Examined) -> int:
    """Micro-batches of a step over all processes: the Trainer's own, 2 where it has one or there is none."""
    arguments = getattr(x.trainer, "args", None)
    if arguments is None:
        return 2
    return max(2, int(arguments.gradient_accumulation_steps) * int(getattr(arguments, "world_size", 1)))


def _added(x: Examined, as_configured: bool = False, **named: Tensor) -> float:
    """What the auxiliary loss adds to the loss of a pass that asks for it, or that leaves it to the configuration."""
    if not x.asks:
        return _added_by_gradient(x, **named)
    losses = []
    for aux in (None if as_configured else True, False):
        torch.manual_seed(SEED)
        with torch.no_grad():
            one = x.loss_pass(x.ids_BS, aux=aux, use_cache=False, **named)
        if aux:
            x.auxiliary(one)
        losses.append(float(one.output.loss))
    adds = losses[0] - losses[1]
    return adds if abs(adds) > ROUNDING * abs(losses[1]) else 0.0


def _added_by_gradient(x: Examined, **named: Any) -> float:
    one = x.loss_pass(x.ids_BS, use_cache=False, **named)
    auxiliary = x.auxiliary(one)
    if not auxiliary.requires_grad:
        raise DoesNotApply("the auxiliary loss has no graph, and a pass cannot be asked for none")
    (weight,) = torch.autograd.grad(one.output.loss, auxiliary, allow_unused=True)
    return 0.0 if weight is None else float(weight * auxiliary.detach())
