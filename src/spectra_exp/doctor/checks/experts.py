"""Checks of the experts and routers themselves: idle and overloaded ones, tied, frozen and copied ones."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from spectra_exp.doctor.examined import SEED, DoesNotApply, Examined
from spectra_exp.doctor.registry import DOUBTFUL, FAULT, OK, Outcome, check
from spectra_exp.measure.nulls import uniform_counts
from spectra_exp.moe.families import down_projections

# Chance of an idle expert under uniform routing below which one is a fault.
UNLIKELY = 0.01
# An expert that takes so large a share of tokens, or this many times its fair part, is dominant.
MOST, TIMES_FAIR = 0.95, 8.0
DRAWS = 200
# Relative distance of weights below which an expert is a copy of another.
COPY = 1e-3


def _used(x: Examined) -> float:
    """Experts that a token uses, mean over layers and tokens."""
    return float(x.loads_LE.sum() / len(x.loads_LE) / x.num_tokens)


def _by_chance(x: Examined) -> np.ndarray:
    """[R, E] loads that uniform routing gives with as many experts a token."""
    drawn = (*[0] * max(1, round(_used(x))), x.num_tokens)
    return uniform_counts(x.loads_LE.shape[1], drawn, DRAWS, SEED)


@check(
    "Idle experts",
    figure="experts without a token, all layers",
    ok_if=f"0; more is doubtful where uniform routing leaves one idle with a chance above {UNLIKELY:g}",
    meaning="Experts that no token reaches are memory without a function; chance leaves none idle on so much text.",
    advice="Look at the auxiliary loss's weight and at the router's initial scale; re-initialise dead experts.",
    order=100,
)
def idle_experts(x: Examined) -> Outcome:
    """Loads over all batches, and what uniform routing of as many tokens would leave idle."""
    experts = x.loads_LE.shape[1]
    if max(1, round(_used(x))) >= experts:
        raise DoesNotApply("every token uses all experts")
    chance = float((_by_chance(x) == 0).any(1).mean())
    idle = dict(zip(x.names, (x.loads_LE == 0).sum(1).tolist(), strict=True))
    number, worst = sum(idle.values()), max(idle, key=idle.__getitem__)
    note = f"{x.num_tokens} tokens; uniform routing leaves one idle with chance {chance:.2g}"
    if not number:
        return Outcome(OK, 0, 0, "what chance gives", note=note)
    status = FAULT if chance <= UNLIKELY else DOUBTFUL
    return Outcome(status, number, 0, "what chance gives", f"{worst} ({idle[worst]} of {experts})", note)


@check(
    "Dominant experts",
    figure="largest share of tokens that use one expert",
    ok_if=f"at most the least of {TIMES_FAIR:g} fair shares and {MOST:g}",
    meaning="One expert takes nearly all tokens: the layer is close to dense, and its device is the slowest.",
    advice="Look at the balance by layer; raise the weight of the auxiliary loss, or balance by a selection bias.",
    order=101,
)
def dominant_experts(x: Examined) -> Outcome:
    """The largest load of each layer beside what uniform routing gives."""
    fair = _used(x) / x.loads_LE.shape[1]
    if fair >= MOST:
        raise DoesNotApply("every token uses all experts")
    limit = min(MOST, TIMES_FAIR * fair)
    shares = (x.loads_LE.max(1) / x.num_tokens).tolist()
    worst = int(np.argmax(shares))
    by_chance = float(np.quantile(_by_chance(x).max(1), 0.99)) / x.num_tokens
    note = f"a fair share is {fair:.3f}, the largest by chance {by_chance:.3f}"
    return Outcome.within(
        shares[worst], limit, x.names[worst], note, f"the least of {TIMES_FAIR:g} fair shares and {MOST:g}:"
    )


@check(
    "Copied experts",
    figure="pairs of experts in one layer with the same weights",
    ok_if=f"0; the same: within {COPY:g} of their size",
    meaning="Copies that are routed alike get the same gradient and stay copies: upcycling without noise.",
    advice="Perturb the copies (drop-upcycling, noise) or give their router rows that differ.",
    order=130,
)
def copied_experts(x: Examined) -> Outcome:
    """Distances between the experts' down-projections."""
    pairs = {}
    for name, experts in zip(x.names, x.experts, strict=True):
        weights_EF = down_projections(experts).detach().float().flatten(1)
        # Experts that do nothing have no weights.
        weights_EF = weights_EF[weights_EF.abs().amax(1) > 0]
        apart_EE = torch.cdist(weights_EF, weights_EF, compute_mode="donot_use_mm_for_euclid_dist")
        size = float(weights_EF.norm(dim=1).mean()) if len(weights_EF) else 1.0
        pairs[name] = int((apart_EE <= COPY * size).triu(1).sum())
    worst = max(pairs, key=pairs.__getitem__)
    return Outcome.within(sum(pairs.values()), 0, worst, f"layers: {len(pairs)}")


@check(
    "Tied experts and routers",
    figure="pairs of layers that hold the same tensor",
    ok_if="0",
    meaning="Two layers hold one router or one set of experts: changes of one are changes of the other.",
    advice="Make modules anew for each layer, unless sharing is what you want.",
    order=131,
)
def tied(x: Examined) -> Outcome:
    """Storage of the parameters of each two layers."""
    stores = [
        {p.data_ptr() for p in [*router, *experts.parameters()] if p.numel()}
        for router, experts in zip(x.routers, x.experts, strict=True)
    ]
    named = list(zip(x.names, stores, strict=True))
    shared = [f"{a} and {b}" for (a, one), (b, other) in combinations(named, 2) if one & other]
    on_purpose = x.own and bool(x.model._shared_router_keys)
    status = OK if not shared else DOUBTFUL if on_purpose else FAULT
    return Outcome(status, len(shared), 0, place=", ".join(shared[:2]))


@check(
    "Frozen experts and routers",
    figure="layers of which the router or experts are not trained",
    ok_if="0; more is doubtful",
    meaning="A router or experts without requires_grad stay as they are; often a loader's or an adapter's doing.",
    advice="Set requires_grad of what should be trained.",
    order=132,
)
def frozen(x: Examined) -> Outcome:
    """requires_grad of each layer's router and experts; parts of which nothing can be trained do not count."""
    idle = [
        f"{name}: {what}"
        for name, router, experts in zip(x.names, x.routers, x.experts, strict=True)
        for what, parameters in (("router", router), ("experts", list(experts.parameters())))
        if parameters and not any(p.requires_grad for p in parameters)
    ]
    return Outcome(DOUBTFUL if idle else OK, len(idle), 0, place=", ".join(idle[:2]))
