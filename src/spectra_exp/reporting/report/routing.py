"""Routing pictures of one run: who served what, layer by layer, over training and over domains.

Letters: L routed layers, E experts, M domains.
"""

from __future__ import annotations

import numpy as np

from spectra_exp.measure.snapshot import RoutingSnapshot
from spectra_exp.presentation.html import Block, Chart, Group
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.report.loads import load_panel, relative_load
from spectra_exp.runs.stored import StoredRun

LEAD = (
    "Left: each expert's load over the even share, over training (1 is balance). Right, at the end: how much more "
    "often an expert serves a domain than the average token (1 is indifference). Orange is above one, blue below."
)


def routing_block(run: StoredRun) -> Block | None:
    """Two pictures for each routed layer; None without a snapshot that has layers."""
    kept = [snapshot for snapshot in run.snapshots.values() if snapshot.counts_LE.size]
    if not kept:
        return None
    last = kept[-1]
    names = domain_names(run, last)
    layers = [_layer(layer, kept, last, names) for layer in range(last.counts_LE.shape[0])]
    return Block("routing", "Routing", LEAD, layers)


def domain_names(run: StoredRun, snapshot: RoutingSnapshot) -> list[str]:
    """The domains' names in the snapshot's order, which is alphabetical; their numbers where the names do not match."""
    losses = {
        metric
        for split, metric, layer in run.curves
        if split == "validation" and metric.startswith("val_loss_") and run.curve(split, metric, layer)
    }
    known = sorted(metric.removeprefix("val_loss_") for metric in losses)
    served_M = snapshot.domain_counts_LME.sum(axis=(0, 2)) > 0
    # A domain without a scored token has neither a loss nor a count.
    if len(known) != int(served_M.sum()):
        return [f"domain {i}" for i in range(len(served_M))]
    left = iter(known)
    return [next(left) if served else f"domain {i}" for i, served in enumerate(served_M)]


def affinity(counts_ME: np.ndarray) -> np.ndarray:
    """[M, E] P(expert | domain) / P(expert), domains weighted as they come.

    NaN for a domain without a count, and for an expert that serves none.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        of_domain_ME = counts_ME / counts_ME.sum(axis=1, keepdims=True)
        return of_domain_ME / (counts_ME.sum(axis=0) / counts_ME.sum())


def _layer(layer: int, kept: list[RoutingSnapshot], last: RoutingSnapshot, names: list[str]) -> Group:
    experts = [str(i) for i in range(last.counts_LE.shape[1])]
    same = [s for s in kept if s.counts_LE.shape == last.counts_LE.shape]
    loads = np.array([relative_load(s.counts_LE)[layer] for s in same])
    times = [f"{100 * s.fraction:.0f} %" for s in same]
    usage = load_panel(loads, times, experts, "{row} of training, expert {column}")
    served_ME = affinity(last.domain_counts_LME[layer])
    found = np.isfinite(served_ME).any(axis=1)
    rows = [name for name, is_there in zip(names, found, strict=True) if is_there]
    name = f"Layer {layer}"
    caption = f": load by expert over training{_cv(last, layer)}"
    pictures = [Chart(usage, f"Load of layer {layer} over training", name, caption)]
    if rows:
        domains = load_panel(served_ME[found], rows, experts, "{row}, expert {column}")
        pictures.append(Chart(domains, f"Domains of layer {layer}", name, ": use by domain over use by all"))
    return Group("charts", pictures)


def _cv(snapshot: RoutingSnapshot, layer: int) -> str:
    counts_E = snapshot.counts_LE[layer]
    return f", load_cv {number_text(float(counts_E.std() / counts_E.mean()))} at the end" if counts_E.sum() else ""
