"""How alike a layer's experts are: by weights, by outputs, by what the router holds of them, by serving together.

Letters: L layers, E experts, D width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from spectra_exp.interpret.draw import heat, panels, say_empty
from spectra_exp.interpret.registry import CHOICE, Request, part
from spectra_exp.interpret.results import Result, layer_table
from spectra_exp.interpret.subject import Subject
from spectra_exp.measure.specialization import coactivation_matrix

KEPT = 3


@dataclass(frozen=True)
class Likeness:
    """One way of comparing a layer's experts: an [E, E] matrix per layer, None for a layer without one.

    `missing`: why no layer has one.
    """

    name: str
    caption: str
    by_layer: list[np.ndarray | None]
    limits: tuple[float, float] = (-1, 1)
    scale: str = "RdBu_r"
    missing: str = "the router holds no vector for an expert (hash, random)"


@part("Nearest neighbours among experts, Gram and similarity matrices", *CHOICE, order=22)
def neighbours(request: Request) -> Result:
    """Matrices of similarity by layer, and each expert's nearest ones."""
    result = Result()
    rows = []
    for like in likenesses(request.subject):
        if all(matrix is None for matrix in like.by_layer):
            result.notes.append(f"No `{like.name}`: {like.missing}.")
            continue
        experts = ("expert", range(request.subject.num_experts))
        result.tables[like.name] = layer_table(experts, "other", similarity=like.by_layer)
        result.add_picture(like.name, like.caption, partial(_draw, like=like))
        rows += nearest_rows(like)
    result.tables["nearest"] = pd.DataFrame(rows)
    result.notes.append(
        "Weights: flattened down-projections. An expert without a token has no mean output; its row is grey."
    )
    return result


def likenesses(subject: Subject) -> list[Likeness]:
    """The four ways, for every layer."""
    stats = subject.trace.statistics
    layers = range(subject.num_layers)
    together = [coactivation_matrix(s) if s.sizes[2:].any() else None for s in stats]
    for matrix in together:
        if matrix is not None:
            np.fill_diagonal(matrix, np.nan)
    return [
        Likeness(
            "weights",
            "Cosine of the experts' flattened down-projections.",
            [cosines(subject.engine.weights_EF(layer)) for layer in layers],
        ),
        Likeness(
            "outputs",
            "Cosine of the experts' mean outputs over the tokens they serve.",
            [cosines(s.output_mean_ED) for s in stats],
        ),
        Likeness(
            "gram",
            "Gram matrix of the experts' representations in the router (unit length).",
            [cosines(s.representation_ED) for s in stats],
        ),
        Likeness(
            "coactivation",
            "Share of the row's tokens that also use the column's expert.",
            together,
            (0, float(max((np.nanmax(m) for m in together if m is not None), default=1.0))),
            "viridis",
            "every token uses one expert (k = 1)",
        ),
    ]


def cosines(vectors_ED: np.ndarray | None) -> np.ndarray | None:
    """[E, E] cosines; NaN for a vector without direction or that is not finite; None without vectors."""
    if vectors_ED is None:
        return None
    length_E1 = np.linalg.norm(vectors_ED.astype(np.float64), axis=1, keepdims=True)
    unit_ED = np.divide(vectors_ED, length_E1, out=np.full(vectors_ED.shape, np.nan), where=length_E1 > 0)
    return unit_ED @ unit_ED.T


def nearest_rows(like: Likeness) -> list[dict[str, object]]:
    """Each expert's KEPT nearest ones, the nearest first."""
    rows = []
    for layer, matrix in enumerate(like.by_layer):
        for expert, line in enumerate([] if matrix is None else matrix):
            others = [i for i in range(len(line)) if i != expert and np.isfinite(line[i])]
            ranked = sorted(others, key=lambda i: (-line[i], i))[:KEPT]
            rows += [
                {
                    "layer": layer,
                    "by": like.name,
                    "expert": expert,
                    "rank": rank,
                    "neighbour": other,
                    "similarity": line[other],
                }
                for rank, other in enumerate(ranked, start=1)
            ]
    return rows


def _draw(figure, like: Likeness) -> None:
    size = max(1.9, 0.2 * max(len(m) for m in like.by_layer if m is not None) + 0.7)
    for layer, axes in enumerate(panels(figure, len(like.by_layer), (min(size, 4.0) + 0.4, min(size, 4.0)))):
        matrix = like.by_layer[layer]
        if matrix is None:
            say_empty(axes, "none")
        else:
            heat(axes, matrix, f"layer {layer}", limits=like.limits, scale=like.scale)
