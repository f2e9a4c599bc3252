"""Which experts serve which positions: in the block, and from the beginning of the document.

Letters: N tokens, L layers, E experts, K experts kept per token, P bins of positions.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import heat, panels
from spectra_exp.interpret.registry import CHOICE, Request, part
from spectra_exp.interpret.results import Result, layer_table
from spectra_exp.interpret.trace import group_counts, mean_of, row_shares, sequence_bins
from spectra_exp.measure.information import mutual_information

SEQUENCE_BINS = 32
SHUFFLES = 10


@part("Expert selection along the block and along documents", *CHOICE, order=50)
def positions(request: Request) -> Result:
    """How much more or less often than on average each expert is chosen at a position, and what the position tells.

    `information`: I(expert; position bin) in nats, beside the same with the tokens' positions shuffled.
    """
    trace = request.subject.trace
    bins = sequence_bins(trace.positions_N, SEQUENCE_BINS)
    kinds = {"block": bins, "document": document_bins(trace.documents_N)}
    information, result = [], Result()
    for kind, (bins_N, starts) in kinds.items():
        tables = [
            group_counts(bins_N, trace.experts_NLK[:, layer], len(starts), request.subject.num_experts)
            for layer in range(trace.num_layers)
        ]
        result.tables[kind] = layer_table(
            ("from_position", starts),
            "expert",
            assignments=tables,
            share=[row_shares(table) for table in tables],
            log2_ratio=[log_ratio(table) for table in tables],
        )
        information += [
            {
                "within": kind,
                "layer": layer,
                "information": mutual_information(table),
                "shuffled": shuffled_information(trace.experts_NLK[:, layer], bins_N, table.shape, request.seed),
            }
            for layer, table in enumerate(tables)
        ]
        caption = f"log2 of each expert's share at a position of the {kind} over its share overall; 0: no difference."
        result.add_picture(kind, caption, partial(_draw, tables=tables, kind=kind, starts=starts))
    result.tables["information"] = pd.DataFrame(information)
    result.notes.append(
        "A document's positions count from its first token in the text, whether or not a block boundary lies between."
    )
    return result


def document_bins(documents_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each token's bin of its place in its document, and the first place of each bin: 0, 1, 2, 4, 8 and so on."""
    begins_N = np.ones(len(documents_N), dtype=bool)
    begins_N[1:] = documents_N[1:] != documents_N[:-1]
    index_N = np.arange(len(documents_N))
    place_N = index_N - np.maximum.accumulate(np.where(begins_N, index_N, 0))
    bins_N = np.frexp(place_N)[1]
    return bins_N, np.array([0, *(2**power for power in range(int(bins_N.max())))])


def shuffled_information(experts_NK: np.ndarray, bins_N: np.ndarray, shape: tuple[int, int], seed: int) -> float | None:
    """Mean of I(expert; position) over shuffles of the tokens' positions: what the number of tokens alone gives.

    None where no token has an expert.
    """
    rng = np.random.default_rng(seed)
    tables = [group_counts(rng.permutation(bins_N), experts_NK, *shape) for _ in range(SHUFFLES)]
    return mean_of([mutual_information(table) for table in tables])


def log_ratio(counts_PE: np.ndarray) -> np.ndarray:
    """[P, E] log2 of P(expert | position) / P(expert); NaN where the bin or the expert has nothing."""
    total_E = counts_PE.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_PE = row_shares(counts_PE) / (total_E / total_E.sum())
        return np.where(ratio_PE > 0, np.log2(ratio_PE), np.nan)


def _draw(figure: Figure, tables: list[np.ndarray], kind: str, starts: np.ndarray) -> None:
    every = max(1, len(starts) // 8)
    for layer, axes in enumerate(panels(figure, len(tables), (3.0, 0.16 * tables[0].shape[1] + 1.2), 2)):
        cells_EP = log_ratio(tables[layer]).T
        top = max(0.5, float(np.nanmax(np.abs(cells_EP), initial=0.0)))
        heat(axes, cells_EP, f"layer {layer}", limits=(-top, top), scale="RdBu_r")
        axes.set_xticks(range(0, len(starts), every), [str(start) for start in starts[::every]])
        axes.set(xlabel=f"position in the {kind} (tokens)", ylabel="expert")
