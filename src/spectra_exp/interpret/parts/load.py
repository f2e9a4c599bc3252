"""Each expert's share of the load, over all tokens, by domain and by position.

Letters: L layers, E experts, M domains, P bins of positions.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import heat, panels
from spectra_exp.interpret.registry import ROUTED, Request, part
from spectra_exp.interpret.results import Result, layer_table
from spectra_exp.interpret.trace import Trace, group_counts, row_shares, sequence_bins
from spectra_exp.measure.balance import coefficient_of_variation, load_cv_of_draw

POSITION_BINS = 16


@part("Load of each expert, by domain and by position", ROUTED, order=10)
def load(request: Request) -> Result:
    """Shares of assignments by layer and expert: over all tokens, and within each domain and each stretch; the load CV
    beside what the draw of documents gives."""
    trace, domains = request.subject.trace, request.subject.domains
    bins_N, edges = sequence_bins(trace.positions_N, POSITION_BINS)
    starts = [str(edge) for edge in edges]
    by_position, by_domain = (
        [
            row_shares(group_counts(group_N, trace.experts_NLK[:, layer], groups, request.subject.num_experts))
            for layer in range(trace.num_layers)
        ]
        for group_N, groups in ((bins_N, len(starts)), (trace.domains_N, len(domains)))
    )
    whole_LE = np.stack([stats.share_E for stats in trace.statistics])
    by_start = layer_table(("from_position", starts), "expert", share=by_position)
    result = Result(tables={"balance": _balance(trace), "load": _table(trace), "by_position": by_start})
    result.notes.append(
        "In `balance`, `of_documents` is the load CV that the draw of these documents gives by itself, and "
        "`beyond_documents` what is left of `load_cv` without it: the load CV over ever more such documents."
    )
    result.add_picture(
        "load",
        "Share of the assignments, layer by expert; even would be 1/E.",
        lambda figure: _draw_whole(figure, whole_LE),
    )
    result.add_picture(
        "by_position",
        "Share of the assignments within each stretch of positions (rows), by expert.",
        lambda figure: _draw(figure, by_position, starts),
    )
    if request.subject.num_labelled_domains:
        result.tables["by_domain"] = layer_table(("domain", domains), "expert", share=by_domain)
        result.add_picture(
            "by_domain",
            "Share of the assignments within each domain (rows), by expert.",
            lambda figure: _draw(figure, by_domain, domains),
        )
    else:
        result.notes.append("The text has no domain labels, so there is no table by domain.")
    return result


def _balance(trace: Trace) -> pd.DataFrame:
    """Each layer's load CV, what of it the draw of the documents gives, and the rest, as variances add."""
    documents = int(trace.documents_N.max()) + 1
    rows = []
    for layer, stats in enumerate(trace.statistics):
        counts_GE = group_counts(trace.documents_N, trace.experts_NLK[:, layer], documents, stats.num_experts)
        whole, drawn = float(coefficient_of_variation(counts_GE.sum(axis=0))), load_cv_of_draw(counts_GE)
        beyond = math.sqrt(max(0.0, whole**2 - drawn**2)) if math.isfinite(drawn) else math.nan
        rows.append({"layer": layer, "load_cv": whole, "of_documents": drawn, "beyond_documents": beyond})
    return pd.DataFrame(rows)


def _table(trace: Trace) -> pd.DataFrame:
    rows = [
        {"layer": layer, "expert": expert, "tokens": int(stats.counts_E[expert]), "share": stats.share_E[expert]}
        for layer, stats in enumerate(trace.statistics)
        for expert in range(stats.num_experts)
    ]
    return pd.DataFrame(rows)


def _draw_whole(figure: Figure, whole_LE: np.ndarray) -> None:
    (axes,) = panels(figure, 1, (max(3.4, 0.34 * whole_LE.shape[1] + 1.4), 0.3 * len(whole_LE) + 1.0))
    heat(axes, whole_LE, "share of the load")
    axes.set_xlabel("expert")
    axes.set_ylabel("layer")


def _draw(figure: Figure, shares: list[np.ndarray], names: list[str]) -> None:
    top = max((np.nanmax(table) for table in shares if np.isfinite(table).any()), default=1.0)
    for layer, axes in enumerate(panels(figure, len(shares), (3.0, 0.22 * len(names) + 1.1))):
        heat(axes, shares[layer], f"layer {layer}", limits=(0.0, float(top)), rows=names)
        axes.set_xlabel("expert")
