"""What metrics, settings and rows are called in a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from spectra_exp.config.names import ablation_name
from spectra_exp.presentation.panels import Page
from spectra_exp.reporting.collect import INFERENCE, TRAINING_RULE
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.runs.pairing import GROUP_KEYS

METRIC_LABELS = {
    "train_loss": "Training loss (nats)",
    "val_loss": "Validation loss (nats)",
    "val_accuracy": "Validation accuracy",
    "val_perplexity": "Validation perplexity",
    "load_cv": "Load CV",
    "max_vio": "MaxVio",
    "load_gini": "Load Gini",
    "gram_orthogonality": "Gram orthogonality",
    "output_gram_orthogonality": "Output Gram orthogonality",
    "expert_overlap": "Expert overlap",
    "expert_entropy_norm": "Expert entropy / log E",
    "routing_entropy": "Routing entropy (nats)",
    "routing_entropy_norm": "Routing entropy / log E",
    "routing_confidence": "Routing confidence",
    "routing_consistency": "Routing consistency",
    "sequential_overlap": "Sequential overlap",
    "score_gap": "Score gap",
    "domain_mutual_information": "I(expert; domain) (nats)",
    "domain_purity": "Domain purity",
    "order_purity": "Purity of the two orders of words",
    "boundary_lag": "Lag at a boundary of domains (tokens)",
    "load_balance_loss": "Load-balance loss",
    "temperature": "Temperature",
    "grad_norm_router": "Gradient norm, router",
    "grad_norm_experts": "Gradient norm, experts",
    "grad_norm_other": "Gradient norm, rest",
}
RULES = {
    "": "rule of the run",
    TRAINING_RULE: "training rule",
    f"{INFERENCE}false": "softmax",
    f"{INFERENCE}true": "batch Sinkhorn (not causal)",
    f"{INFERENCE}dual": "dual potentials",
}
"""Rules of routing a metric is measured under, by the suffix of its name."""

NOT_CAUSAL = " †"
Naming = Callable[[Row], str]


def metric_label(metric: str) -> str:
    """The metric with its unit, and below it the rule of routing where its name has one."""
    suffix = next((rule for rule in RULES if rule and metric.endswith(rule)), "")
    base = metric.removesuffix(suffix)
    name = METRIC_LABELS.get(base, base.replace("_", " ").capitalize())
    return f"{name},\n{RULES[suffix]}" if suffix else name


def by_method(row: Row) -> str:
    """The row as a method."""
    return row.method


def by_row(row: Row) -> str:
    """The row as tables call it: its method and the settings that tell it from others."""
    return row.label


def by_ablation(row: Row) -> str:
    """The row as a variant of the full method."""
    return ablation_name(row.key.get("ablation", "none"))


def marked(section: Section, row: Row, name: str) -> str:
    """The name, marked for a row that is not causal."""
    return name if section.causal(row) else name + NOT_CAUSAL


def with_context(page: Page, section: Section, rows: Iterable[Row]) -> Page:
    """The page that says what was typed, which rows are not causal or stale, and which may not be compared."""
    own = [row for row in rows if row.runs]
    footnotes = [f"Runs with {section.title}." if section.study else f"{section.title}."] if section.special else []
    if any(not section.causal(row) for row in own):
        footnotes.append("† not shown to be causal: its loss is no evidence.")
    remarks = []
    if stale := dict.fromkeys(row.label for row in own if section.stale(row)):
        which = "all rows" if len(stale) == len(own) else "; ".join(stale)
        remarks.append(f"Stale, run by other code than today's (refresh=stale runs them again): {which}.")
    for key in GROUP_KEYS:
        values = sorted({str(run[key])[:8] for row in own for run in section.runs(row) if run[key] is not None})
        if len(values) > 1:
            remarks.append(f"Rows differ in {key.replace('_', ' ')} ({', '.join(values)}): not to be compared.")
    return replace(page, footnotes=(*page.footnotes, *footnotes), remarks=(*page.remarks, *remarks))


def arms(rows: Sequence[Row], factors: Sequence[str]) -> dict[str, list[Row]]:
    """The rows by the values of `factors`, in their order; one arm without a name when there are no factors."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        name = ", ".join(f"{factor.rpartition('.')[2]} {row.key[factor]}" for factor in factors if factor in row.key)
        found.setdefault(name, []).append(row)
    return found
