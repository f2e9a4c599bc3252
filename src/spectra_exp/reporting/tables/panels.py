"""Panels of metrics that tables have, by the name that a study's file gives."""

from __future__ import annotations

from spectra_exp.reporting.collect import INFERENCE
from spectra_exp.reporting.tables.spec import Panel

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
