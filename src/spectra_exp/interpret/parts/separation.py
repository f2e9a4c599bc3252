"""Whether hidden states fall apart by expert, and whether experts serve different tokens, against chance.

Letters: H sampled tokens, E experts, d hidden size, R draws.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from spectra_exp.interpret.draw import draw_against_chance
from spectra_exp.interpret.registry import CHOICE, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.trace import Trace
from spectra_exp.measure.floors import marginal_draws
from spectra_exp.measure.separation import LEAST_TOKENS, cosine_silhouette
from spectra_exp.measure.specialization import expert_diversity
from spectra_exp.statistics.resampling import against_chance

PERMUTATIONS = 49


@part("Separation: silhouette of hidden states, diversity of the experts", *CHOICE, order=32)
def separation(request: Request) -> Result:
    """Silhouette by first expert, and one less the mean NMI of the experts' use, by layer."""
    trace = request.subject.trace
    rows = []
    for layer, stats in enumerate(trace.statistics):
        rows.append({"layer": layer, "metric": "silhouette"} | _silhouette(trace, layer, request.seed))
        drawn = map(expert_diversity, marginal_draws(stats, request.seed))
        rows.append({"layer": layer, "metric": "expert_diversity"} | against_chance(expert_diversity(stats), drawn))
    result = Result(tables={"separation": pd.DataFrame(rows)})
    result.add_picture(
        "separation",
        "Silhouette of hidden states by first expert; diversity of the experts' use.",
        lambda figure: draw_against_chance(figure, result.tables["separation"]),
    )
    result.notes.append(
        f"Silhouette: {len(trace.sample_H)} tokens, cosine distance, chance by {PERMUTATIONS} permutations of the "
        "experts. Diversity: chance is random routing with the same loads; too few draws for a p-value."
    )
    if len(trace.sample_H) < LEAST_TOKENS:
        result.notes.append(f"No silhouette: it needs at least {LEAST_TOKENS} tokens.")
    return result


def _silhouette(trace: Trace, layer: int, seed: int) -> dict[str, float | None]:
    first_H = trace.first_NL[trace.sample_H, layer]
    hidden_Hd = trace.hidden_LHd[layer][first_H >= 0]
    label_H = first_H[first_H >= 0]
    if len(label_H) < LEAST_TOKENS or not np.isfinite(hidden_Hd).all():
        return against_chance(None, [])
    rng = np.random.default_rng([seed, layer])
    drawn = (cosine_silhouette(hidden_Hd, rng.permutation(label_H)) for _ in range(PERMUTATIONS))
    return against_chance(cosine_silhouette(hidden_Hd, label_H), drawn)
