"""Figures of the routing: pure functions of recorded statistics, each beside its chance floor."""

from spectra_exp.measure.base import METRICS, Metric, MetricTable, get_metric
from spectra_exp.measure.compute import (
    compute_floors,
    compute_metrics,
    compute_stability,
    compute_stability_floors,
    describe_metrics,
)

__all__ = [
    "METRICS",
    "Metric",
    "MetricTable",
    "compute_floors",
    "compute_metrics",
    "compute_stability",
    "compute_stability_floors",
    "describe_metrics",
    "get_metric",
]
