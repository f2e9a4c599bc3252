"""Checks of a backward pass: what trains the router, and what recomputation changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from spectra_exp.doctor.checks.losses import frozen_routers, router_gradients, said_of_frozen
from spectra_exp.doctor.examined import EVALUATION, SEED, DoesNotApply, Examined
from spectra_exp.doctor.keeping import kept, moved, state_of
from spectra_exp.doctor.registry import FAULT, OK, Outcome, check
from spectra_exp.foundations.errors import SpectraError, first_line

# Below this share of the whole gradient a router learns nothing from the language-model loss; rounding leaves 1e-8.
LEAST = 1e-6
# Of gradients that are summed in another order.
CLOSE = 1e-3


@check(
    "Gradient of the router",
    figure="least norm of a router's gradient of the language-model loss / norm of the whole gradient",
    ok_if=f"at least {LEAST:g}",
    meaning="The language-model loss does not train this router: its weights are constant (one expert per token and "
    "weights that are made to sum to 1), or detached.",
    advice="With one expert per token do not renormalise the chosen weights; combine with weights that have a graph.",
    order=90,
)
def router_gradient(x: Examined) -> Outcome:
    """The gradient of the language-model loss alone."""
    frozen = frozen_routers(x)
    trained = [bool(parameters) and name not in frozen for name, parameters in zip(x.names, x.routers, strict=True)]
    if not any(trained):
        raise DoesNotApply(said_of_frozen(frozen)[0] if frozen else "no router has a parameter")
    with x.training():
        one = x.loss_pass(x.ids_BS, aux=False, use_cache=False)
        loss = x.language_loss(one, x.ids_BS)
        norms, whole = router_gradients(x, loss), _norm(x, loss)
    shares = {name: norm / max(whole, 1e-30) for name, norm, is_ in zip(x.names, norms, trained, strict=True) if is_}
    least = min(shares, key=shares.__getitem__)
    status = OK if shares[least] >= LEAST else FAULT
    return Outcome(status, shares[least], LEAST, "least", "" if status == OK else least, *said_of_frozen(frozen))


def _norm(x: Examined, loss: Tensor) -> float:
    """The norm of the whole gradient; the graph goes."""
    found = torch.autograd.grad(loss, [p for p in x.model.parameters() if p.requires_grad], allow_unused=True)
    return sum(float(g.float().square().sum()) for g in found if g is not None) ** 0.5


@dataclass(frozen=True)
class _Step:
    """What a forward and a backward pass left. `chosen_LBSE`: of the recomputed pass where there was one."""

    first_LBSE: list[Tensor]
    chosen_LBSE: list[Tensor]
    norms: list[float]
    state: dict[str, Tensor]


@check(
    "Recomputation (gradient checkpointing)",
    figure="largest of: share of tokens routed otherwise when recomputed, relative change of a load that the model "
    "keeps, of a router's gradient",
    ok_if=f"at most {CLOSE:g}",
    meaning="The backward pass is of another routing than the forward pass, or counts are doubled by recomputation.",
    advice="Move counts after the backward pass or outside of recomputation; draw noise from the saved random state.",
    order=60,
    rests_on=EVALUATION,
)
def recomputation(x: Examined) -> Outcome:
    """A training pass with gradient checkpointing (not reentrant) against one without."""
    if not getattr(x.model, "supports_gradient_checkpointing", False):
        raise DoesNotApply("the model does not support gradient checkpointing")
    plain = _step(x, recomputed=False)
    try:
        again = _step(x, recomputed=True)
    except CheckpointError as error:
        return Outcome(FAULT, note=f"the recomputed pass is another: {first_line(error)}")
    flips = x.flips(again.first_LBSE, again.chosen_LBSE)
    found = {f"routing of {name}": share for name, share in zip(x.names, flips, strict=True)}
    found |= moved(plain.state, again.state)
    for name, one, other in zip(x.names, plain.norms, again.norms, strict=True):
        found[f"gradient of {name}"] = abs(one - other) / max(one, other, 1e-30)
    worst = max(found, key=found.__getitem__)
    return Outcome.within(found[worst], CLOSE, worst)


def _step(x: Examined, recomputed: bool) -> _Step:
    with kept(x.model), x.training():
        torch.manual_seed(SEED)
        if recomputed:
            x.model.activation_checkpointing_enable({"use_reentrant": False})
        one = x.loss_pass(x.ids_BS, use_cache=False)
        first = [chosen.clone() for chosen in one.chosen_LBSE]
        x.begin()
        norms = router_gradients(x, one.output.loss)
        last = first
        if recomputed:
            try:
                # In their old order: the backward pass meets the last layer first.
                seen = [watch.finish() for watch in x.watches]
            except SpectraError as error:
                raise DoesNotApply("gradient checkpointing recomputes no sparse block") from error
            last = x.chosen(one.output, seen, x.ids_BS, None)
        return _Step(first, last, norms, state_of(x.model))
