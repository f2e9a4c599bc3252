"""Vocabulary specialization: how much of a token id's occurrences go to one expert.

Letters: N tokens, K experts per token, E experts, V vocabulary, R permutations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from spectra_exp.interpret.draw import draw_against_chance
from spectra_exp.interpret.registry import CHOICE, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.trace import group_counts
from spectra_exp.statistics.resampling import against_chance

LEAST_COUNT = 10
PERMUTATIONS = 49


@part("Vocabulary specialization of the experts", *CHOICE, order=31)
def vocabulary(request: Request) -> Result:
    """The mean over token ids of the largest share that one expert has of their assignments, against chance."""
    trace, piece = request.subject.trace, request.subject.piece
    ids, counts = np.unique(trace.token_ids_N, return_counts=True)
    kept = ids[counts >= LEAST_COUNT]
    if not len(kept):
        raise Empty(f"no token id occurs {LEAST_COUNT} times in the text")
    place_N = np.searchsorted(kept, trace.token_ids_N)
    place_N[(place_N == len(kept)) | (kept[np.minimum(place_N, len(kept) - 1)] != trace.token_ids_N)] = -1
    rows, owned = [], []
    for layer in range(trace.num_layers):
        experts_NK, sizes = trace.experts_NLK[:, layer], (len(kept), request.subject.num_experts)
        counts_VE = group_counts(place_N, experts_NK, *sizes)
        rng = np.random.default_rng([request.seed, layer])
        shuffled = (group_counts(place_N, rng.permutation(experts_NK), *sizes) for _ in range(PERMUTATIONS))
        drawn = [specialization(table) for table in shuffled]
        rows.append(
            {"layer": layer, "metric": "vocabulary_specialization"} | against_chance(specialization(counts_VE), drawn)
        )
        owned += _owned(counts_VE, layer, kept, piece)
    result = Result(tables={"vocabulary": pd.DataFrame(rows), "by_expert": pd.DataFrame(owned)})
    result.add_picture(
        "vocabulary",
        "Largest share that one expert has of a token id, mean over assignments.",
        lambda figure: draw_against_chance(figure, result.tables["vocabulary"]),
    )
    result.notes.append(
        f"Over the {len(kept)} token ids with at least {LEAST_COUNT} occurrences. Chance: the experts of all tokens "
        f"permuted over the text {PERMUTATIONS} times, which keeps every expert's load."
    )
    return result


def specialization(counts_VE: np.ndarray) -> float | None:
    """Share of all assignments that go to the first expert of their token id, 1/E..1; None without any.

    *Source:* vocabulary specialization of OLMoE (Muennighoff et al. 2024), over executed assignments, weighted by how
    often an id occurs.
    """
    total = counts_VE.sum()
    return float(counts_VE.max(axis=1).sum() / total) if total else None


def _owned(counts_VE: np.ndarray, layer: int, ids: np.ndarray, piece) -> list[dict[str, Any]]:
    """For each expert the ids of which it has more than any other, and the first of them by share."""
    first_V, share_V = counts_VE.argmax(axis=1), counts_VE.max(axis=1) / np.maximum(counts_VE.sum(axis=1), 1)
    rows = []
    for expert in range(counts_VE.shape[1]):
        mine = np.flatnonzero((first_V == expert) & (counts_VE[:, expert] > 0))
        ranked = mine[np.argsort(-share_V[mine], kind="stable")]
        rows.append(
            {
                "layer": layer,
                "expert": expert,
                "ids": len(mine),
                "mean_share": float(share_V[mine].mean()) if len(mine) else None,
                "first": " ".join(repr(piece(int(ids[v]))) for v in ranked[:8]),
            }
        )
    return rows
