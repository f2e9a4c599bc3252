"""Causal checks: what it costs to swap two experts, or to route a domain to its second-best experts.

Letters: N tokens, L layers, E experts, M domains, X what experts' profiles are over (domains, or the vocabulary).
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import added_by_layer, panels, with_arms
from spectra_exp.interpret.registry import CHOICE, RUN, Request, part
from spectra_exp.interpret.rerouted import Rerouted, always, correlation_within_layers, in_domain, rank_correlation
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import evenly
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.moe.interventions import arbitrary, next_best, swapped
from spectra_exp.presentation.style import PLAIN
from spectra_exp.statistics.resampling import columns

SWAP_TOKENS, DOMAIN_TOKENS = 4096, 6144
# Swaps over all layers, at most, and in one layer.
MOST_SWAPS, SWAPS_PER_LAYER = 24, 6
ALL_TOKENS = "all"


@part("Causal checks: swapped experts, and domains sent to their second-best experts", RUN, *CHOICE, order=68)
def causal(request: Request) -> Result:
    """The loss each change adds, beside the figure that a reader would have foretold it by.

    swaps: `distance`, the total variation between what the two experts serve (domains; tokens where those are not
    known). second_best: every layer sends the domain's tokens to the experts ranked just below the chosen, and,
    beside it, to `arbitrary` ones of the rest; `concentration`: largest P(expert | domain) over an even share,
    mean over layers.
    """
    subject = request.subject
    swaps = pd.DataFrame(swap_rows(subject, request))
    result = Result(tables={"swaps": swaps}, data={})
    found: dict[str, Any] = {}
    if len(swaps):
        found["distance_and_added"] = correlation_within_layers(swaps, "distance", "added")
    else:
        result.notes.append("No layer has two experts with tokens, so none were swapped.")
    second = pd.DataFrame(domain_rows(subject, request))
    result.tables["second_best"] = second
    if subject.top_k >= subject.num_experts:
        result.notes.append("Every token uses all experts, so there is no second-best one: nothing changes.")
    if not subject.num_labelled_domains:
        result.notes.append(
            "The text has no domain labels: experts are compared by tokens served, and all text is one domain."
        )
    found["concentration_and_second_best"] = rank_correlation(
        second["concentration"].to_numpy(float), second["second_best"].to_numpy(float)
    )
    result.data["correlations"] = found
    if len(swaps):
        result.add_picture(
            "swaps",
            "Loss that swapping two experts of a layer adds (95 % intervals over documents).",
            lambda figure: _draw_swaps(figure, swaps),
        )
    result.add_picture(
        "second_best",
        "A domain's own loss when sent to its second-best or to arbitrary other experts "
        "(95 % intervals over documents).",
        lambda figure: _draw_second(figure, second),
    )
    return result


def profile(stats: LayerStatistics) -> np.ndarray:
    """[E, X] what each expert serves, domains (each counted evenly) or token ids; rows sum to 1, 0 without tokens."""
    counts_EX = stats.counts_EV.astype(float)
    if (stats.domains_G >= 0).any():
        counts_ME = stats.counts_ME
        counts_EX = (counts_ME / np.maximum(counts_ME.sum(axis=1, keepdims=True), 1)).T
    return counts_EX / np.maximum(counts_EX.sum(axis=1, keepdims=True), 1e-12)


def chosen_swaps(stats: LayerStatistics, most: int) -> list[tuple[int, int, float]]:
    """At most `most` pairs of experts with tokens and their distance: from the most alike to the most unlike."""
    profile_EX, used = profile(stats), np.flatnonzero(stats.counts_E > 0)
    pairs = [(float(np.abs(profile_EX[a] - profile_EX[b]).sum() / 2), int(a), int(b)) for a, b in combinations(used, 2)]
    pairs.sort()
    return [(pairs[place][1], pairs[place][2], pairs[place][0]) for place in evenly(len(pairs), most)]


def swap_rows(subject: Subject, request: Request) -> list[dict[str, Any]]:
    """A row for each swap, with the loss it adds to the text and to each domain."""
    sample, rows = Rerouted(subject, SWAP_TOKENS), []
    most = max(1, min(SWAPS_PER_LAYER, MOST_SWAPS // subject.num_layers))
    for layer, stats in enumerate(subject.trace.statistics):
        for first, second, distance in chosen_swaps(stats, most):
            request.say(f"causal: swaps in layer {layer + 1} of {subject.num_layers}")
            added_N = sample.added(always({layer: swapped(first, second)}))
            row: dict[str, Any] = {
                "layer": layer,
                "expert": first,
                "other": second,
                "distance": distance,
                "share": float(stats.share_E[[first, second]].sum()),
            }
            row |= columns(sample.mean_added(added_N, request.seed), "added")
            for domain, name in enumerate(subject.domains):
                found = sample.mean_added(added_N, request.seed, domain)
                row[f"added_{name}"] = None if found is None else found.mean
            rows.append(row)
    return rows


def domain_rows(subject: Subject, request: Request) -> list[dict[str, Any]]:
    """A row for each domain that has scored tokens, or one for all text where domains are not known."""
    sample, rows = Rerouted(subject, DOMAIN_TOKENS), []
    named = list(enumerate(subject.domains)) if subject.num_labelled_domains else [(None, ALL_TOKENS)]
    for domain, name in named:
        request.say(f"causal: second-best experts for {name}")
        own_N = in_domain(sample.domains_N, domain)
        if not np.isfinite(sample.base_N[own_N]).any():
            continue
        row: dict[str, Any] = {
            "domain": name,
            "tokens": int(own_N.sum()),
            "concentration": concentration(subject, domain),
        }
        for kind in ("second_best", "arbitrary"):
            added_N = sample.added(partial(_everywhere, subject, domain=domain, kind=kind, seed=request.seed))
            row |= columns(sample.mean_added(added_N, request.seed, domain), kind)
            elsewhere_N = added_N[~own_N]
            row[f"{kind}_elsewhere"] = float(np.nanmean(elsewhere_N)) if np.isfinite(elsewhere_N).any() else None
        rows.append(row)
    return rows


def concentration(subject: Subject, domain: int | None) -> float:
    """Largest share of an expert in the domain's assignments, times E, mean over layers: 1 for an even load."""
    tops = []
    for stats in subject.trace.statistics:
        counts_E = stats.counts_E if domain is None else stats.counts_ME[domain]
        tops.append(counts_E.max() / max(int(counts_E.sum()), 1) * stats.num_experts)
    return float(np.mean(tops))


def _everywhere(subject: Subject, domains_N: np.ndarray, domain: int | None, kind: str, seed: int) -> dict:
    """The intervention of every layer on the domain's tokens of one pass."""
    mark_N = torch.from_numpy(in_domain(domains_N, domain)).to(next(subject.engine.model.parameters()).device)
    layers = range(subject.num_layers)
    if kind == "second_best":
        return {layer: next_best(mark_N) for layer in layers}
    return {layer: arbitrary(mark_N, seed * subject.num_layers + layer) for layer in layers}


def _draw_swaps(figure: Figure, swaps: pd.DataFrame) -> None:
    (axes,) = panels(figure, 1, (4.2, 2.8))
    added_by_layer(axes, swaps, "distance")
    axes.legend(fontsize=5.5)
    axes.set(xlabel="distance between what the two experts serve", ylabel="loss added by the swap (nats)")


def _draw_second(figure: Figure, second: pd.DataFrame) -> None:
    (axes,) = panels(figure, 1, (4.2, 0.3 * len(second) + 1.0))
    for shift, kind in enumerate(("second_best", "arbitrary")):
        known, value, arms = with_arms(second, kind)
        axes.barh(
            known.index + 0.38 * shift - 0.19,
            value,
            height=0.36,
            color=PLAIN[shift],
            xerr=arms,
            error_kw={"elinewidth": 0.6},
            label=kind.replace("_", " "),
        )
    axes.set_yticks(range(len(second)), second["domain"])
    axes.set_xlabel("loss added to the domain (nats)")
    axes.legend(fontsize=5.5)
