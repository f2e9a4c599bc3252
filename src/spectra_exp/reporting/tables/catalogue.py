"""The tables that are no study's own, each declared once."""

from __future__ import annotations

from spectra_exp.reporting.tables.panels import PANELS
from spectra_exp.reporting.tables.spec import Panel, TableSpec

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
