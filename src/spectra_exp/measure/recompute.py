"""Metrics of a finished run out of what it stored, without its model: whatever stored counts allow, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectra_exp.measure.balance import MEASURES
from spectra_exp.measure.base import METRICS, OF_EVALUATION, MetricTable
from spectra_exp.measure.compute import compute_stability, compute_stability_floors, finite
from spectra_exp.measure.counts import LayerStatistics
from spectra_exp.measure.floors import uniform_balance
from spectra_exp.measure.snapshot import RoutingSnapshot


@dataclass(frozen=True)
class CountedLayer:
    """The part of LayerStatistics that a snapshot keeps of one layer; asking for the rest is an AttributeError."""

    layer: int
    top_k: int
    num_tokens: int
    num_domains: int
    counts_E: np.ndarray
    counts_GE: np.ndarray
    counts_ME: np.ndarray
    probe_experts_PK: np.ndarray
    probe_weights_PK: np.ndarray

    num_experts = LayerStatistics.num_experts
    share_E = LayerStatistics.share_E
    inclusion_E = LayerStatistics.inclusion_E


def counted_layers(snapshot: RoutingSnapshot) -> list[CountedLayer]:
    """One for each routed layer of the snapshot."""
    return [
        CountedLayer(
            layer=layer,
            top_k=snapshot.top_k,
            num_tokens=snapshot.num_tokens,
            num_domains=snapshot.domain_counts_LME.shape[1],
            counts_E=snapshot.counts_LE[layer],
            counts_GE=snapshot.document_counts_LGE[layer],
            counts_ME=snapshot.domain_counts_LME[layer],
            probe_experts_PK=snapshot.probe_experts_LPK[layer],
            probe_weights_PK=snapshot.probe_weights_LPK[layer],
        )
        for layer in range(len(snapshot.counts_LE))
    ]


def metrics_of_counts(snapshot: RoutingSnapshot) -> MetricTable:
    """The metrics of one evaluation that its stored counts give; one that needs more is absent."""
    layers = counted_layers(snapshot)
    found: dict[str, list[float | None]] = {}
    for metric in METRICS.values():
        if metric.reduction not in OF_EVALUATION:
            continue
        try:
            found[metric.name] = [finite(metric.function(layer)) for layer in layers]
        except AttributeError as error:
            if not isinstance(error.obj, CountedLayer):
                raise
    return MetricTable(found)


def floors_of_counts(snapshot: RoutingSnapshot) -> MetricTable:
    """The chance floors, as `<metric>_floor`, that follow from the number of tokens alone.

    None where tokens took unequal numbers of experts, or others than k: how many took how many was not kept.
    """
    layers, experts = snapshot.counts_LE.shape
    if (snapshot.counts_LE.sum(axis=1) != snapshot.num_tokens * snapshot.top_k).any():
        return MetricTable({})
    floors = uniform_balance(snapshot.num_tokens, experts, snapshot.top_k)
    named = {METRICS[name].floor_name: [floors[name]] * layers for name in MEASURES if name in floors}
    return MetricTable({name: values for name, values in named.items() if name is not None})


def stability_of_snapshots(snapshots: Sequence[RoutingSnapshot]) -> tuple[MetricTable, MetricTable]:
    """The metrics over the fractions of training and their floors; both empty with fewer than two snapshots."""
    if len(snapshots) < 2:
        return MetricTable({}), MetricTable({})
    return compute_stability(snapshots), compute_stability_floors(snapshots)
