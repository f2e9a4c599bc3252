"""Where routing changes when one domain's document ends and another's begins, for one run or two.

Letters: Q pairs, T distances from the boundary, L layers, E experts, G documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from spectra_exp.interpret.boundaries import (
    Latency,
    Pairs,
    carry_over_difference,
    join_pairs,
    latency,
    lean_to,
    overlap,
    pieces,
    profiles,
    same_experts,
)
from spectra_exp.interpret.draw import panels
from spectra_exp.interpret.registry import CHOICE, DOMAINS, Empty, Request, part
from spectra_exp.interpret.results import Result
from spectra_exp.interpret.subject import Subject
from spectra_exp.presentation.style import BAND_ALPHA, GREY, PLAIN
from spectra_exp.statistics.intervals import Interval
from spectra_exp.statistics.resampling import columns, curve_over_pairs

PAIRS = 96
# What all layers together are called in the tables.
ALL = "all"
TOO_FEW = (
    "its documents are too short or too few to join: three of 8 tokens are needed in each of two domains (tokens=N "
    "looks at more text)"
)
CURVES = {
    "before": "overlap with the experts of the domain before",
    "after": "overlap with the experts of the domain after",
    "lean": "the second less the first",
    "lean_control": "the same after a text of the second's own domain",
    "same_experts": "share of experts that do not depend on which domain came before",
}


@part("Switch of routing at a domain boundary: latency in tokens", *CHOICE, DOMAINS, order=54, both=True)
def boundaries(request: Request) -> Result:
    """Curves over the distance from the boundary and the latency, all layers together and each alone.

    A document is joined to the end of one of another domain (the switch) and of one of its own (the control): what
    differs between the two in the same tokens is what the domain before them does.
    """
    result, curves, rows, notes, measured = Result(), [], [], [], []
    for subject in request.subjects:
        problem = _unfit(subject)
        pairs = _pairs(subject, request.seed) if problem is None else None
        if pairs is None:
            notes.append(f"{subject.name}: {problem or TOO_FEW}.")
            continue
        by_layer = _measure(subject, pairs)
        curves += [
            _curve(subject, layer, name, values, request.seed)
            for layer in (*list(by_layer)[1:], ALL)
            for name, values in by_layer[layer].items()
        ]
        leans = {layer: (own["lean"], own["lean_control"]) for layer, own in by_layer.items()}
        found = {layer: latency(*lean, request.seed) for layer, lean in leans.items()}
        measured.append((pairs, leans[ALL], found[ALL]))
        rows += [
            {"run": subject.name, "layer": layer, "pairs": len(pairs.before_Q), "tokens_each": pairs.half} | _row(one)
            for layer, one in found.items()
        ]
        notes.append(_in_words(subject, pairs, found[ALL]))
    if not curves:
        raise Empty(" ".join(notes).removesuffix("."))
    result.tables = {"curves": pd.concat(curves, ignore_index=True), "latency": pd.DataFrame(rows)}
    result.data["meaning"] = CURVES | {"latency": Latency.__doc__}
    result.notes += notes + _differences(measured, request.seed)
    result.notes.append(
        "Profiles leave the two documents of a pair out. The joined texts are read as one document, whatever "
        "data.cross_document the run was trained with."
    )
    result.add_picture(
        "curves",
        "Routing around the boundary (0: first token of the second document); means over pairs with 95 % intervals.",
        lambda figure: _draw(figure, result.tables["curves"], request.labels),
    )
    return result


def _unfit(subject: Subject) -> str | None:
    """Why the second model has no curve; the first one's needs are checked before the part runs."""
    if subject.num_layers == 0 or subject.num_experts < 2:
        return "it has no choice of experts"
    return None if subject.num_labelled_domains > 1 else "its text has no domain labels"


def _differences(measured: list[tuple[Pairs, tuple, Latency]], seed: int) -> list[str]:
    """The difference of two runs' carry-over, where both have one and read the same pairs."""
    if len(measured) < 2 or any(found.carry_over is None for *_, found in measured):
        return []
    (own, lean, _), (other, other_lean, _) = measured
    if not np.array_equal(own.switch_QT, other.switch_QT) or not np.array_equal(own.control_QT, other.control_QT):
        return ["The two runs read different texts, so their latencies are not compared pair by pair."]
    if not all(found.over for *_, found in measured):
        return ["A switch is not over within the window, so the two runs' carry-overs are not compared."]
    found = carry_over_difference(lean, other_lean, seed)
    return [f"Difference of the two runs' carry-over over the same pairs: {_text(found)} tokens."]


def used_experts(subject: Subject, ids_QT: np.ndarray) -> np.ndarray:
    """bool [L, Q, T, E]: the experts of each token of texts read as one document each."""
    step, found = subject.engine.rows_at_once(ids_QT.shape[1]), []
    for start in range(0, len(ids_QT), step):
        ids_BS = torch.from_numpy(ids_QT[start : start + step].astype(np.int64))
        with torch.no_grad():
            records = subject.engine.forward(ids_BS, torch.zeros_like(ids_BS)).records
        found.append(np.stack([r.chosen_NE.cpu().numpy().reshape(*ids_BS.shape, -1) for r in records]))
    return np.concatenate(found, axis=1)


def _pairs(subject: Subject, seed: int) -> Pairs | None:
    """The joined texts, no longer than the blocks that the model is looked at on; None with too few documents."""
    longest = min(subject.engine.longest, subject.held_out.token_ids_MS.shape[1])
    return join_pairs(pieces(subject.held_out), longest, PAIRS, seed)


def _measure(subject: Subject, pairs: Pairs) -> dict[str, dict[str, np.ndarray]]:
    """For all layers together, and then for each, the values [Q, T] of every curve."""
    switch_LQTE, control_LQTE = (used_experts(subject, ids) for ids in (pairs.switch_QT, pairs.control_QT))
    by_layer = {}
    for layer, (switch_QTE, control_QTE) in enumerate(zip(switch_LQTE, control_LQTE, strict=True)):
        before_QE, after_QE = _profiles(subject, pairs, layer)
        before_QT, after_QT = (overlap(switch_QTE, profile_QE[:, None]) for profile_QE in (before_QE, after_QE))
        own = {
            "before": before_QT,
            "after": after_QT,
            "lean": after_QT - before_QT,
            "lean_control": lean_to(control_QTE, before_QE, after_QE),
            "same_experts": same_experts(switch_QTE, control_QTE),
        }
        # The first halves are two documents: nothing to compare token by token.
        own["same_experts"][:, : pairs.half] = np.nan
        by_layer[str(layer)] = own
    return {ALL: {name: np.mean([own[name] for own in by_layer.values()], axis=0) for name in CURVES}} | by_layer


def _profiles(subject: Subject, pairs: Pairs, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """[Q, E] profiles of the domains before and after."""
    stats = subject.trace.statistics[layer]
    first = int(subject.held_out.document_ids_MS.min())
    out = np.stack([pairs.before_Q, pairs.control_Q, pairs.after_Q], axis=1) - first
    both = [
        [profiles(stats.counts_GE, stats.domains_G, domain, left) for domain in sides]
        for sides, left in zip(pairs.domains_Q2, out, strict=True)
    ]
    before_QE, after_QE = np.moveaxis(np.array(both), 1, 0)
    return before_QE, after_QE


def _curve(subject: Subject, layer: str, name: str, values_QT: np.ndarray, seed: int) -> pd.DataFrame:
    half = values_QT.shape[1] // 2
    mean, low, high = curve_over_pairs(values_QT, seed)
    return pd.DataFrame(
        {
            "run": subject.name,
            "layer": layer,
            "curve": name,
            "distance": np.arange(-half, half),
            "mean": mean,
            "low": low,
            "high": high,
        }
    )


def _row(found: Latency) -> dict[str, Any]:
    row: dict[str, Any] = {"half_way": found.half_way, "over": found.over if found.left is not None else None}
    for name in ("left", "carry_over", "delay", "gap"):
        row |= columns(getattr(found, name), name)
    return row


def _in_words(subject: Subject, pairs: Pairs, found: Latency) -> str:
    head = f"{subject.name}: {len(pairs.before_Q)} pairs of {pairs.half} + {pairs.half} tokens"
    if found.carry_over is None:
        return f"{head}: routing does not tell the two domains apart (gap {_text(found.gap)}), so there is no latency."
    known = found.half_way is not None
    way = f"gone after {found.half_way} tokens" if known else f"not gone within {found.window} tokens"
    start = f"{head}: half of the way is {way}"
    if found.over:
        return f"{start}; the domain before carries over for {_text(found.carry_over)} tokens; gap {_text(found.gap)}."
    return (
        f"{start}. The switch is not over within the window of {found.window} tokens: {_text(found.left)} of the gap "
        f"is left in the last {found.window - found.window // 2}. So the carry-over, {_text(found.carry_over)} tokens, "
        f"is a lower bound that grows with the window; gap {_text(found.gap)}."
    )


def _text(found: Interval | None) -> str:
    if found is None or found.low is None:
        return "not known"
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def _draw(figure: Figure, curves: pd.DataFrame, labels: dict[str, str]) -> None:
    runs = list(dict.fromkeys(curves["run"]))
    shown = (("before", "after"), ("lean", "lean_control"), ("same_experts",))
    axes_of = panels(figure, len(shown), (3.1, 2.7), 3)
    for axes, names in zip(axes_of, shown, strict=True):
        for number, run in enumerate(runs):
            for place, name in enumerate(names):
                found = curves[(curves["run"] == run) & (curves["layer"] == ALL) & (curves["curve"] == name)]
                colour, dash = PLAIN[number], ("-", "--")[place]
                label = f"{labels[run]}: {name.replace('_', ' ')}"
                axes.plot(found["distance"], found["mean"], color=colour, linestyle=dash, label=label)
                axes.fill_between(
                    found["distance"], found["low"], found["high"], color=colour, alpha=BAND_ALPHA, linewidth=0
                )
        axes.axvline(-0.5, color=GREY, linewidth=0.7)
        axes.set(xlabel="distance from the boundary (tokens)", title=" and ".join(names).replace("_", " "))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), fontsize=5.0)
    axes_of[0].set_ylabel("overlap of experts")
