"""Each expert's share of the load, over all tokens, by domain and by position.

Letters: L layers, E experts, M domains, P bins of positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spectra_exp.interpret.draw import heat, panels
from spectra_exp.interpret.registry import ROUTED, TRACE, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POSITION_BINS = 16


@part("Load of each expert, by domain and by position", TRACE, ROUTED, order=10)
def load(request: Request) -> Result:
    """Shares of assignments by layer and expert: over all tokens, and within each domain and each stretch."""
    trace, domains = request.subject.trace, request.subject.domains
    bins_N, edges = position_bins(trace.positions_N)
    by_position = [_shares(trace, layer, bins_N, len(edges)) for layer in range(trace.num_layers)]
    by_domain = [_shares(trace, layer, trace.domains_N, len(domains)) for layer in range(trace.num_layers)]
    whole_LE = np.stack([stats.share_E for stats in trace.statistics])
    result = Result(
        tables={
            "load": _table(trace),
            "by_position": _long(by_position, [str(edge) for edge in edges], "from_position"),
        }
    )
    result.add_picture(
        "load",
        "Share of the assignments, layer by expert; even would be 1/E.",
        lambda figure: _draw_whole(figure, whole_LE),
    )
    result.add_picture(
        "by_position",
        "Share of the assignments within each stretch of positions (rows), by expert.",
        lambda figure: _draw(figure, by_position, [str(e) for e in edges]),
    )
    if request.subject.num_labelled_domains:
        result.tables["by_domain"] = _long(by_domain, domains, "domain")
        result.add_picture(
            "by_domain",
            "Share of the assignments within each domain (rows), by expert.",
            lambda figure: _draw(figure, by_domain, domains),
        )
    else:
        result.notes.append("The text has no domain labels, so there is no table by domain.")
    return result


def position_bins(positions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each token's bin, and the first position of each bin; at most POSITION_BINS of equal width."""
    length = int(positions_N.max()) + 1
    width = -(-length // POSITION_BINS)
    return positions_N // width, np.arange(0, length, width)


def _shares(trace: Trace, layer: int, group_N: np.ndarray, groups: int) -> np.ndarray:
    """[groups, E] shares of the assignments of the group's tokens; NaN for a group without one; -1 is no group."""
    used_NE = trace.used(layer)
    counts = np.zeros((groups, used_NE.shape[1]))
    for group in range(groups):
        counts[group] = used_NE[group_N == group].sum(axis=0)
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def _table(trace: Trace) -> pd.DataFrame:
    rows = [
        {"layer": layer, "expert": expert, "tokens": int(stats.counts_E[expert]), "share": stats.share_E[expert]}
        for layer, stats in enumerate(trace.statistics)
        for expert in range(stats.num_experts)
    ]
    return pd.DataFrame(rows)


def _long(shares: list[np.ndarray], names: list[str], column: str) -> pd.DataFrame:
    rows = [
        {"layer": layer, column: names[group], "expert": expert, "share": value}
        for layer, table in enumerate(shares)
        for (group, expert), value in np.ndenumerate(table)
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
