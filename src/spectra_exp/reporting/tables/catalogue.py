"""Panels of metrics by the name that a study's file gives, and the table that is no study's own."""

from __future__ import annotations

from dataclasses import replace

from spectra_exp.measure.base import own_metrics
from spectra_exp.reporting.collect import INFERENCE
from spectra_exp.reporting.tables.spec import Panel, TableSpec

BALANCE = ("val_loss", "load_cv", "max_vio", "load_gini", "expert_entropy_norm")
SPECIAL = ("expert_overlap", "gram_orthogonality", "output_gram_orthogonality", "domain_mutual_information")
STEADY = ("routing_consistency", "sequential_overlap", "routing_entropy", "routing_confidence")
RULES = ("false", "true", "dual")
PANELS = {
    "balance": Panel("Loss and balance", BALANCE),
    "decisions": Panel("Specialization and decisions", (*SPECIAL, *STEADY)),
    "specialization": Panel("Specialization", SPECIAL),
    "stability": Panel("Decisions and stability", STEADY),
    "inference": Panel(
        "The same weights under the other rules of inference",
        tuple(f"{metric}{INFERENCE}{rule}" for metric in ("val_loss", "load_cv", "max_vio") for rule in RULES),
    ),
}

ROUTING_METRICS = TableSpec(
    name="routing_metrics",
    title="Routing metrics of every method: mean over seeds ± half the 95 % t interval",
    study="",
    panels=(
        Panel("Loss and balance", ("val_loss", "load_cv", "max_vio"), beside=True),
        Panel("Balance", ("load_gini", "expert_entropy_norm", "unused_rate", "collapse_rate")),
        PANELS["specialization"],
        PANELS["stability"],
    ),
)


def routing_metrics() -> TableSpec:
    """ROUTING_METRICS, and a panel of the metrics that plug-ins registered."""
    own = [Panel("Own metrics", names)] if (names := own_metrics()) else []
    return replace(ROUTING_METRICS, panels=(*ROUTING_METRICS.panels, *own))
