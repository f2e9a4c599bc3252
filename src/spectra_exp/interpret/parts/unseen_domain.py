"""Text of a domain that was held out of training, against the domains that were trained on.

Letters: N tokens, L layers, E experts, M domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spectra_exp.interpret.draw import panels
from spectra_exp.interpret.registry import CHOICE, DOMAINS, RUN, Need, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.measure.balance import coefficient_of_variation
from spectra_exp.presentation.style import GREY, PLAIN
from spectra_exp.statistics.resampling import columns, difference_over_documents

HELD_OUT = Need(
    lambda r: held_out_domain(r.subject) is not None,
    "no domain was held out of this run's training (data.hold_out_domain=NAME holds one out)",
)
MEASURES = {
    "loss": "nats of predicting a token",
    "entropy": "routing entropy as a share of ln E, mean over layers",
    "load_cv": "imbalance of the domain's load over experts, mean over layers",
    "load_distance": "total variation between the domain's load and that of the trained domains, mean over layers",
}


@part("Out-of-domain text: a domain held out of training", RUN, HELD_OUT, *CHOICE, DOMAINS, order=62, both=True)
def unseen_domain(request: Request) -> Result:
    """Loss, entropy and load by domain, the held-out one against the others; the second run's beside them.

    Domains differ anyway, so only a second run that saw the domain (`against`, the same but for
    `data.hold_out_domain`) tells what not having seen it does.
    """
    unseen = held_out_domain(request.subject)
    domains, differences, notes = [], [], []
    for subject in request.subjects:
        if unseen not in subject.domains or not subject.num_layers:
            notes.append(f"{subject.name} is not shown: it has no routed layer, or no text of '{unseen}'.")
            continue
        domains += [
            {"run": subject.name, "domain": name, "held_out": name == held_out_domain(subject)} | values
            for name, values in by_domain(subject, unseen).items()
        ]
        differences += [
            {"run": subject.name, "domain": unseen, "held_out": unseen == held_out_domain(subject)} | row
            for row in differences_of(subject, unseen, request.seed)
        ]
    result = Result(tables={"domains": pd.DataFrame(domains), "differences": pd.DataFrame(differences)})
    result.data["meaning"] = MEASURES
    result.add_picture(
        "domains",
        f"Each domain; '{unseen}' was held out of training ({request.subject.name}).",
        lambda figure: _draw(figure, result.tables["domains"], request.labels),
    )
    result.notes += notes
    result.notes.append(
        "Domains differ in difficulty: give against= the same run without data.hold_out_domain to see what not having "
        "seen the domain does."
        if request.against is None
        else "Losses are per token, and a tokenizer trained without the domain cuts it into more tokens: only losses "
        "of runs with one tokenizer compare."
    )
    return result


def held_out_domain(subject: Subject) -> str | None:
    """The domain that the run's training never saw, None for one that saw all."""
    return subject.run.config["data"].get("hold_out_domain") if subject.run is not None else None


def by_domain(subject: Subject, unseen: str) -> dict[str, dict[str, Any]]:
    """Measures of each domain that has tokens; distances are from the load of all domains but `unseen`."""
    trace, found = subject.trace, {}
    counts_LME = np.stack([stats.counts_ME for stats in trace.statistics])
    rest_M = np.array([name != unseen for name in subject.domains])
    usual_LE = counts_LME[:, rest_M].sum(axis=1)
    for domain, name in enumerate(subject.domains):
        own_N, load_LE = trace.domains_N == domain, counts_LME[:, domain]
        if own_N.any():
            found[name] = {
                "tokens": int(own_N.sum()),
                "loss": _mean(trace.losses_N[own_N]),
                "entropy": None if trace.entropies_NL is None else float(trace.mean_entropy_N[own_N].mean()),
                "load_cv": float(coefficient_of_variation(load_LE).mean()),
                "load_distance": float(load_distance(load_LE, usual_LE).mean()),
            }
    return found


def load_distance(load_LE: np.ndarray, other_LE: np.ndarray) -> np.ndarray:
    """[L] 0..1: half the summed differences of two distributions over experts."""
    shares = [counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1) for counts in (load_LE, other_LE)]
    return np.abs(shares[0] - shares[1]).sum(axis=-1) / 2


def differences_of(subject: Subject, unseen: str, seed: int) -> list[dict[str, Any]]:
    """Loss and entropy of the domain's tokens less those of all other domains', with intervals over documents."""
    trace = subject.trace
    known_N = trace.domains_N >= 0
    own_N = trace.domains_N[known_N] == subject.domains.index(unseen)
    measured = {"loss": trace.losses_N}
    if trace.entropies_NL is not None:
        measured["entropy"] = trace.mean_entropy_N
    return [
        {"measure": name}
        | columns(difference_over_documents(values[known_N], own_N, trace.documents_N[known_N], seed), "difference")
        for name, values in measured.items()
    ]


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _draw(figure: Figure, domains: pd.DataFrame, labels: dict[str, str]) -> None:
    runs, names = list(dict.fromkeys(domains["run"])), list(dict.fromkeys(domains["domain"]))
    usual = [GREY, PLAIN[0]]
    for axes, measure in zip(panels(figure, len(MEASURES), (2.3, 0.24 * len(names) + 1.1)), MEASURES, strict=True):
        for number, run in enumerate(runs):
            own = domains[domains["run"] == run].dropna(subset=[measure])
            places = [names.index(name) + 0.4 * number - 0.2 * (len(runs) - 1) for name in own["domain"]]
            colours = [PLAIN[1] if held else usual[number] for held in own["held_out"]]
            axes.barh(places, own[measure].astype(float), height=0.36 if len(runs) > 1 else 0.7, color=colours)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(measure.replace("_", " "))
    key = [Patch(facecolor=usual[number], label=labels[run]) for number, run in enumerate(runs)]
    figure.legend(
        handles=[*key, Patch(facecolor=PLAIN[1], label="held out of training")],
        loc="outside lower center",
        ncols=len(key) + 1,
        fontsize=5.5,
    )
