"""What each expert is worth: the loss of the tokens it serves, and the loss that switching it off adds, by domain.

Letters: N tokens, L layers, E experts, M domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import added_by_layer, heat, panels
from spectra_exp.interpret.parts.ambiguity import following_losses
from spectra_exp.interpret.parts.causal import profile
from spectra_exp.interpret.registry import CHOICE, RUN, Request, part
from spectra_exp.interpret.rerouted import Rerouted, always, correlation_within_layers
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.interpret.trace import mean_of
from spectra_exp.moe.interventions import switched_off
from spectra_exp.presentation.style import GREY
from spectra_exp.statistics.resampling import columns, difference_over_documents

TOKENS = 4096
# Experts that are switched off, at most, and the share of the even load below which one is rare.
MOST = 64
RARE = 0.5


@part("Rare experts, and what switching each expert off costs", RUN, *CHOICE, order=66)
def experts_off(request: Request) -> Result:
    """Per expert: load, loss where it is used against elsewhere, loss added without it; and the last by domain.

    Off: no token goes to the expert, and the weights of a token's other experts grow to what they were together.
    Correlational figures beside it: `share_of_domain`, the expert's share of the domain's assignments; `purity` and
    `purest_domain`, the largest P(domain | expert), domains counted evenly, against `hit_most`, the domain that loses
    most without the expert.
    """
    subject = request.subject
    chosen = chosen_experts(np.stack([stats.counts_E for stats in subject.trace.statistics]))
    sample = Rerouted(subject, TOKENS)
    rows, by_domain = [], []
    for number, (layer, expert) in enumerate(chosen):
        request.say(f"experts_off: {number + 1} of {len(chosen)}")
        added_N = sample.added(always({layer: switched_off(expert)}))
        own = _domain_rows(subject, sample, added_N, layer, expert, request.seed)
        by_domain += [{"layer": layer, "expert": expert} | row for row in own]
        rows.append(
            usage(subject, layer, expert, request.seed)
            | columns(sample.mean_added(added_N, request.seed), "added")
            | purest_and_hit(subject, layer, expert, own)
        )
    result = Result(tables={"experts": pd.DataFrame(rows)}, data={"summary": summary(rows, by_domain)})
    result.notes += _notes(subject, sample, len(chosen))
    if by_domain:
        result.tables["by_domain"] = pd.DataFrame(by_domain)
        table = result.tables["by_domain"]
        result.add_picture(
            "by_domain",
            "Loss that switching an expert (row: layer.expert) off adds, by domain (nats).",
            lambda figure: _draw_domains(figure, table, subject.domains),
        )
    result.add_picture(
        "experts",
        "Load of an expert and the loss that switching it off adds (95 % intervals over "
        "documents); rare ones lie left of the dotted line.",
        lambda figure: _draw(figure, result.tables["experts"], subject),
    )
    return result


def chosen_experts(counts_LE: np.ndarray) -> list[tuple[int, int]]:
    """(layer, expert) of all experts, or, of more than MOST, those with the lowest load in each layer."""
    num_layers, num_experts = counts_LE.shape
    each = num_experts if counts_LE.size <= MOST else max(1, MOST // num_layers)
    ranked_LE = np.argsort(counts_LE, axis=1, kind="stable")[:, :each]
    return [(layer, int(expert)) for layer, row in enumerate(ranked_LE) for expert in sorted(row)]


def usage(subject: Subject, layer: int, expert: int, seed: int) -> dict[str, Any]:
    """Load, and the loss of predictions made at the expert's tokens less that of the other tokens."""
    trace = subject.trace
    used_N, losses_N = trace.used(layer)[:, expert], following_losses(trace)
    share = float(trace.statistics[layer].share_E[expert])
    return {
        "layer": layer,
        "expert": expert,
        "tokens": int(used_N.sum()),
        "share": share,
        "rare": share < RARE / subject.num_experts,
        "loss_when_used": mean_of(losses_N[used_N]),
    } | columns(difference_over_documents(losses_N, used_N, trace.documents_N, seed), "difference")


def purest_and_hit(
    subject: Subject, layer: int, expert: int, by_domain: list[dict[str, Any]]
) -> dict[str, float | str | None]:
    """The domain that an expert is purest in, and the one that loses most without it; None without tokens or labels."""
    row: dict[str, float | str | None] = {"purity": None, "purest_domain": None, "hit_most": None}
    stats = subject.trace.statistics[layer]
    known = [found for found in by_domain if found["added"] is not None]
    if known and stats.counts_E[expert]:
        profile_M = profile(stats)[expert]
        row |= {
            "purity": float(profile_M.max()),
            "purest_domain": subject.domains[int(profile_M.argmax())],
            "hit_most": max(known, key=lambda found: found["added"])["domain"],
        }
    return row


def summary(rows: list[dict[str, Any]], by_domain: list[dict[str, Any]]) -> dict[str, Any]:
    """How many experts are rare, what they and the others are worth, and how far the shares foretell the cost.

    `share_and_added`: Spearman's correlation over a layer's experts of the load and the loss added, mean over layers;
    `..._by_domain`: over experts and domains of the share of the domain and the loss added to it.
    `purest_is_hit_most`: share of experts whose purest domain is the one that loses most without them.
    """
    found: dict[str, Any] = {"experts": len(rows), "rare": sum(row["rare"] for row in rows)}
    for name, rare in (("added_by_rare", True), ("added_by_others", False)):
        found[name] = mean_of([row["added"] for row in rows if row["rare"] is rare])
    found["share_and_added"] = correlation_within_layers(pd.DataFrame(rows), "share", "added")
    if by_domain:
        table = pd.DataFrame(by_domain)
        found["share_and_added_by_domain"] = correlation_within_layers(table, "share_of_domain", "added")
        same = [row["purest_domain"] == row["hit_most"] for row in rows if row["hit_most"] is not None]
        found["purest_is_hit_most"] = mean_of(same)
        found["purest_is_hit_most_by_chance"] = 1 / table["domain"].nunique()
    return found


def _domain_rows(
    subject: Subject, sample: Rerouted, added_N: np.ndarray, layer: int, expert: int, seed: int
) -> list[dict[str, Any]]:
    counts_ME = subject.trace.statistics[layer].counts_ME
    rows = []
    for domain, name in enumerate(subject.domains):
        if total := int(counts_ME[domain].sum()):
            rows.append(
                {"domain": name, "share_of_domain": float(counts_ME[domain, expert] / total)}
                | columns(sample.mean_added(added_N, seed, domain), "added")
            )
    return rows


def _notes(subject: Subject, sample: Rerouted, measured: int) -> list[str]:
    notes = [
        f"Switched off on {sample.text.num_tokens} tokens in whole blocks spread over the text; load and loss "
        f"when used are over all {subject.trace.num_tokens}."
    ]
    total = subject.num_layers * subject.num_experts
    if measured < total:
        notes.append(f"{measured} of {total} experts were switched off: those of the lowest load in each layer.")
    if not subject.domains:
        notes.append("The text has no domain labels, so there is no table by domain.")
    if subject.top_k == 1:
        notes.append("k = 1: tokens of an expert that is off get nothing from its layer.")
    return notes


def _draw(figure: Figure, experts: pd.DataFrame, subject: Subject) -> None:
    (axes,) = panels(figure, 1, (4.2, 2.8))
    added_by_layer(axes, experts, "share")
    axes.axvline(RARE / subject.num_experts, color=GREY, linestyle=":", linewidth=0.9)
    axes.set(xlabel="share of the layer's load", ylabel="loss added when off (nats)")
    axes.legend(ncols=2, fontsize=5.5)


def _draw_domains(figure: Figure, table: pd.DataFrame, domains: list[str]) -> None:
    cells = table.pivot(index=["layer", "expert"], columns="domain", values="added").astype(float)
    cells = cells[[name for name in domains if name in cells]]
    top = float(np.nanmax(np.abs(cells.to_numpy()), initial=1e-6))
    (axes,) = panels(figure, 1, (0.42 * cells.shape[1] + 2.0, 0.13 * len(cells) + 1.3))
    heat(
        axes,
        cells.to_numpy(),
        "loss added when off (nats)",
        limits=(-top, top),
        scale="RdBu_r",
        rows=[f"{layer}.{expert}" for layer, expert in cells.index],
        columns=list(cells.columns),
    )
