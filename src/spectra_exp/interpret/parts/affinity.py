"""How experts and domains go together: affinity, purity, mutual information, each against shuffled documents.

Letters: L layers, E experts, M domains, R permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import draw_against_chance, heat, panels
from spectra_exp.interpret.registry import CHOICE, DOMAINS, Request, part
from spectra_exp.interpret.results import Result, layer_table
from spectra_exp.interpret.trace import row_shares
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.floors import document_draws
from spectra_exp.measure.specialization import domain_affinity, domain_mutual_information, domain_purity
from spectra_exp.statistics.resampling import against_chance

PERMUTATIONS = 499
FIGURES: dict[str, Callable[[LayerStatistics], float | None]] = {
    "domain_purity": domain_purity,
    "domain_mutual_information": domain_mutual_information,
}


@part("Domains: affinity, purity and mutual information, against shuffled documents", *CHOICE, DOMAINS, order=30)
def affinity(request: Request) -> Result:
    """Affinity and purity matrices by layer, and how far purity and information lie above chance."""
    stats, domains = request.subject.trace.statistics, request.subject.domains
    matrices = {
        "affinity": ([domain_affinity(s) for s in stats], "P(expert | domain) / P(expert): 1 is no preference."),
        "purity": (
            [domain_shares(s) for s in stats],
            "P(domain | expert), domains weighted equally: a column's largest is its purity.",
        ),
    }
    result = Result()
    for name, (by_layer, caption) in matrices.items():
        result.tables[name] = layer_table(("domain", domains), "expert", **{name: by_layer})
        result.add_picture(name, caption, partial(_draw, name=name, by_layer=by_layer, domains=domains))
    result.tables["significance"] = significance(stats, request.seed)
    result.add_picture(
        "significance",
        "Purity and mutual information by layer, with the 95 % range of chance.",
        lambda figure: draw_against_chance(figure, result.tables["significance"]),
    )
    result.notes.append(
        f"Chance: the domains of whole documents permuted {PERMUTATIONS} times (permuting single tokens would make "
        "any figure look significant). One-sided p, each layer alone, not corrected for the number of layers."
    )
    return result


def domain_shares(stats: LayerStatistics) -> np.ndarray:
    """[M, E] P(domain | expert) with the domains weighted equally; NaN for a domain or an expert without tokens."""
    with np.errstate(invalid="ignore", divide="ignore"):
        given_ME = row_shares(stats.counts_ME)
        return given_ME / np.nansum(given_ME, axis=0)


def significance(stats: Sequence[LayerStatistics], seed: int) -> pd.DataFrame:
    """One row for each layer and figure: its value, what chance gives, and p."""
    rows = []
    for layer, s in enumerate(stats):
        drawn = list(document_draws(s, seed, PERMUTATIONS))
        for name, figure in FIGURES.items():
            rows.append({"layer": layer, "metric": name} | against_chance(figure(s), map(figure, drawn)))
    return pd.DataFrame(rows)


def _draw(figure: Figure, name: str, by_layer: list[np.ndarray], domains: list[str]) -> None:
    # Twice as much as even, and more, is one colour; the figure in the cell says how much.
    limits, scale = ((0.0, 2.0), "RdBu_r") if name == "affinity" else ((0.0, 1.0), "viridis")
    size = (0.28 * by_layer[0].shape[1] + 1.7, 0.24 * len(domains) + 0.7)
    for layer, axes in enumerate(panels(figure, len(by_layer), size)):
        heat(axes, by_layer[layer], f"layer {layer}", limits=limits, scale=scale, rows=domains)
        axes.set_xlabel("expert")
