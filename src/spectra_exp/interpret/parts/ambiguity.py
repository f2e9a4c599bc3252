"""Tokens whose router hesitates: how many there are, and whether the model predicts worse after them.

Letters: N tokens, L layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import panels, with_arms
from spectra_exp.interpret.registry import CHOICE, DISTRIBUTION, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.trace import Trace, mean_of
from spectra_exp.presentation.style import GREY, PLAIN
from spectra_exp.statistics.resampling import columns, difference_over_documents, mean_over_documents

# Share of ln E from which a token counts as ambiguous, and the share of tokens of the relative definition.
NEAR_EVEN = 0.9
MOST_AMBIGUOUS = 0.1
DEFINITIONS = {
    "near_even": f"routing entropy of at least {NEAR_EVEN:g} ln E",
    "top_tenth": "the tenth of the tokens with the highest routing entropy",
}


@part("Ambiguous context: tokens of high routing entropy and their loss", *CHOICE, DISTRIBUTION, order=60)
def ambiguity(request: Request) -> Result:
    """Loss of the prediction made at ambiguous tokens against the rest, under two definitions; per layer and over all.

    Entropies are shares of ln E, averaged over layers for `all`. Intervals are over documents.
    """
    trace = request.subject.trace
    scale = np.log(trace.statistics[0].num_experts)
    assert trace.entropies_NL is not None
    by_layer = {"all": trace.mean_entropy_N}
    by_layer |= {str(layer): trace.entropies_NL[:, layer] / scale for layer in range(trace.num_layers)}
    if np.ptp(by_layer["all"]) < 1e-6:
        raise Empty("the router's distribution is the same for every token")
    losses_N = following_losses(trace)
    rows = [
        {"layer": layer, "definition": name, "from_entropy": bound}
        | compared(entropy_N, bound, losses_N, trace, request.seed)
        for layer, entropy_N in by_layer.items()
        for name, bound in bounds(entropy_N).items()
    ]
    tenths = pd.DataFrame(by_tenths(by_layer["all"], losses_N, trace.documents_N, request.seed))
    result = Result(tables={"ambiguous": pd.DataFrame(rows), "by_entropy": tenths}, data={"definitions": DEFINITIONS})
    shares = None
    if request.subject.num_labelled_domains:
        shares = _by_domain(trace, by_layer["all"], request.subject.domains)
        result.tables["by_domain"] = shares
    else:
        result.notes.append("The text has no domain labels, so there is no table by domain.")
    result.add_picture(
        "by_entropy",
        "Loss of the prediction made at a token, by tenths of routing entropy (95 % "
        "intervals over documents), and ambiguous tokens by domain.",
        lambda figure: _draw(figure, tenths, shares),
    )
    result.notes.append("High loss after high entropy is a correlation: both may come of hard text.")
    return result


def following_losses(trace: Trace) -> np.ndarray:
    """[N] nats of the prediction made at each token, that is of the next one; NaN at the end of a sequence."""
    losses_N = np.full(trace.num_tokens, np.nan)
    same_N = trace.sequences_N[1:] == trace.sequences_N[:-1]
    losses_N[:-1][same_N] = trace.losses_N[1:][same_N]
    return losses_N


def bounds(entropy_N: np.ndarray) -> dict[str, float]:
    """The entropy from which a token is ambiguous, by definition."""
    return {"near_even": NEAR_EVEN, "top_tenth": float(np.quantile(entropy_N, 1 - MOST_AMBIGUOUS))}


def compared(
    entropy_N: np.ndarray, bound: float, losses_N: np.ndarray, trace: Trace, seed: int
) -> dict[str, float | int | None]:
    """How many tokens are ambiguous, the loss at them and at the rest, the difference with its interval."""
    marked_N = entropy_N >= bound
    row: dict[str, Any] = {"tokens": int(marked_N.sum()), "share": float(marked_N.mean())}
    for name, side_N in (("loss_ambiguous", marked_N), ("loss_rest", ~marked_N)):
        row[name] = mean_of(losses_N[side_N])
    return row | columns(difference_over_documents(losses_N, marked_N, trace.documents_N, seed), "difference")


def by_tenths(entropy_N: np.ndarray, losses_N: np.ndarray, documents_N: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Mean entropy and loss of each tenth of the tokens by entropy, lowest first; equal entropies keep their order."""
    order = np.argsort(entropy_N, kind="stable")
    rows = []
    for number, place in enumerate(np.array_split(order, min(10, len(order)))):
        found = mean_over_documents(losses_N[place], documents_N[place], seed)
        row = {"tenth": number + 1, "tokens": len(place), "entropy": float(entropy_N[place].mean())}
        rows.append({**row, **columns(found, "loss")})
    return rows


def _by_domain(trace: Trace, entropy_N: np.ndarray, domains: list[str]) -> pd.DataFrame:
    limits = bounds(entropy_N)
    rows = []
    for domain, name in enumerate(domains):
        own_N = trace.domains_N == domain
        if own_N.any():
            shares = {f"share_{key}": float((entropy_N[own_N] >= bound).mean()) for key, bound in limits.items()}
            mean = float(entropy_N[own_N].mean())
            rows.append({"domain": name, "tokens": int(own_N.sum()), "entropy": mean} | shares)
    return pd.DataFrame(rows)


def _draw(figure: Figure, tenths: pd.DataFrame, shares: pd.DataFrame | None) -> None:
    axes_of = panels(figure, 2 if shares is not None else 1, (3.3, 2.5))
    known, loss, arms = with_arms(tenths, "loss")
    axes_of[0].errorbar(known["entropy"], loss, yerr=arms, fmt="o", color=PLAIN[0], elinewidth=0.9)
    axes_of[0].axvline(NEAR_EVEN, color=GREY, linestyle=":", linewidth=0.9)
    axes_of[0].set(xlabel="routing entropy / ln E, by tenths of the tokens", ylabel="loss of the next token (nats)")
    if shares is None:
        return
    places = np.arange(len(shares))
    for shift, (name, colour) in enumerate(zip(DEFINITIONS, PLAIN, strict=False)):
        axes_of[1].barh(
            places + 0.38 * shift - 0.19,
            shares[f"share_{name}"],
            height=0.36,
            color=colour,
            label=name.replace("_", " "),
        )
    axes_of[1].set_yticks(places, shares["domain"])
    axes_of[1].set_xlabel("share of the domain's tokens that are ambiguous")
    axes_of[1].legend()
