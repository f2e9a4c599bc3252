"""How routing goes from layer to layer: what one layer's expert tells about the next one's, and where tokens flow.

Letters: N tokens, L layers, E experts.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectra_exp.interpret.draw import expert_colours, heat, panels
from spectra_exp.interpret.registry import CHOICE, Empty, Request, part
from spectra_exp.interpret.results import Result, layer_table
from spectra_exp.interpret.trace import group_counts, mean_of, row_shares
from spectra_exp.measure.information import normalised_mutual_information

SHUFFLES = 5


@part("Routing across layers: agreement and flow of tokens", *CHOICE, order=52)
def depth(request: Request) -> Result:
    """Agreement of the first experts of any two layers, and the tokens that go from expert to expert.

    `nmi`: normalised mutual information. `matched`: share of tokens that agree once each expert of one layer is
    paired with one of the other as well as can be, since numbers of experts mean nothing across layers. Both beside
    their value with one layer's tokens shuffled.
    """
    trace = request.subject.trace
    if trace.num_layers < 2:
        raise Empty("the model has one routed layer")
    first_NL, num_experts = trace.first_NL, request.subject.num_experts

    def joint_counts(first_N: np.ndarray, other_N: np.ndarray) -> np.ndarray:
        """[E, E]: tokens by their first expert in one layer (row) and another; tokens without one are left out."""
        return group_counts(first_N, other_N[:, None], num_experts, num_experts)

    rng = np.random.default_rng(request.seed)
    agreement = []
    for a, b in combinations(range(trace.num_layers), 2):
        joint = joint_counts(first_NL[:, a], first_NL[:, b])
        by_chance = [joint_counts(rng.permutation(first_NL[:, a]), first_NL[:, b]) for _ in range(SHUFFLES)]
        row: dict[str, float | None] = {"layer": a, "other_layer": b}
        for name, measure in (("nmi", normalised_mutual_information), ("matched", matched_share)):
            row |= {name: measure(joint), f"{name}_shuffled": mean_of([measure(j) for j in by_chance])}
        agreement.append(row)
    flows = [joint_counts(a, b) for a, b in pairwise(first_NL.T)]
    shares = [row_shares(joint) for joint in flows]
    flow = layer_table(("expert", range(num_experts)), "next_expert", tokens=flows, share_of_expert=shares)
    result = Result(tables={"agreement": pd.DataFrame(agreement), "flow": flow})
    result.add_picture(
        "agreement",
        "Agreement of two layers' first experts, less what shuffled tokens give.",
        lambda figure: _draw_agreement(figure, agreement, trace.num_layers),
    )
    result.add_picture(
        "flow",
        "Tokens from first expert to first expert, layer by layer; coloured by where they come "
        "from; heights are shares of the tokens.",
        lambda figure: _draw_flow(figure, flows),
    )
    return result


def matched_share(joint_EE: np.ndarray) -> float | None:
    """Largest share of tokens that agree under a one-to-one naming of one layer's experts by the other's.

    *Source:* Kuhn 1955, by scipy's assignment solver.
    """
    from scipy.optimize import linear_sum_assignment

    if joint_EE.sum() == 0:
        return None
    rows, columns = linear_sum_assignment(joint_EE, maximize=True)
    return float(joint_EE[rows, columns].sum() / joint_EE.sum())


def _draw_agreement(figure: Figure, rows: list[dict], num_layers: int) -> None:
    for axes, name in zip(
        panels(figure, 2, (0.35 * num_layers + 1.9, 0.35 * num_layers + 1.4)), ("nmi", "matched"), strict=True
    ):
        cells = np.full((num_layers, num_layers), np.nan)
        for row in rows:
            if row[name] is not None and row[f"{name}_shuffled"] is not None:
                above = row[name] - row[f"{name}_shuffled"]
                cells[row["layer"], row["other_layer"]] = cells[row["other_layer"], row["layer"]] = above
        heat(axes, cells, f"{name} above shuffled")
        axes.set(xlabel="layer", ylabel="layer")


def _draw_flow(figure: Figure, flows: list[np.ndarray]) -> None:
    num_experts = len(flows[0])
    (axes,) = panels(figure, 1, (1.4 * len(flows) + 1.2, 3.4))
    colours, gap, bar = expert_colours(num_experts), 0.15 / num_experts, 0.05
    loads = [flows[0].sum(axis=1), *(joint.sum(axis=0) for joint in flows)]
    tops = []
    for layer, load_E in enumerate(loads):
        share_E = load_E / max(load_E.sum(), 1)
        bottom_E = np.concatenate([[0.0], np.cumsum(share_E + gap)[:-1]])
        tops.append(bottom_E)
        axes.bar([layer] * num_experts, share_E, width=2 * bar, bottom=bottom_E, color=colours)
        for expert in np.flatnonzero(share_E > 0.03):
            axes.text(layer, bottom_E[expert] + share_E[expert] / 2, str(expert), ha="center", va="center", fontsize=5)
    for layer, joint in enumerate(flows):
        share_EE = joint / max(joint.sum(), 1)
        left_E, right_E = tops[layer].copy(), tops[layer + 1].copy()
        x = np.linspace(layer + bar, layer + 1 - bar, 30)
        blend = (1 - np.cos(np.linspace(0, np.pi, 30))) / 2
        for source, target in np.argwhere(share_EE > 0):
            height = share_EE[source, target]
            low = left_E[source] + (right_E[target] - left_E[source]) * blend
            axes.fill_between(x, low, low + height, color=colours[source], alpha=0.45, linewidth=0)
            left_E[source] += height
            right_E[target] += height
    axes.set_xticks(range(len(loads)), [f"layer {layer}" for layer in range(len(loads))])
    axes.set_ylabel("share of the tokens")
    axes.set_yticks([])
    axes.grid(False)
