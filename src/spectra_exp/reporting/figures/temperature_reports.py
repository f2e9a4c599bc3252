"""The temperature study in JSON: its final figures and rankings, and what its experts specialise in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from spectra_exp.reporting.figures.expert_usage import final_shares, usages
from spectra_exp.reporting.figures.temperature_figures import SHARES, SUMMARY, entropy_change, share_variance
from spectra_exp.reporting.figures.temperatures import best_constant, by_temperature, constant, schedules
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.statistics.intervals import Interval

SPECIALIZATION = (
    "load_gini",
    "load_cv",
    "unused_rate",
    "collapse_rate",
    "expert_overlap",
    "output_gram_orthogonality",
    "domain_purity",
    "domain_mutual_information",
    "expert_diversity",
)


def summary(section: Section, rows: Sequence[Row]) -> dict[str, Any]:
    """Each row's final figures, the best constant, and the schedules from the lowest mean validation loss up."""
    best = best_constant(section, rows)
    metrics = tuple(dict.fromkeys((*SUMMARY, *SHARES, "val_perplexity", "step_time_ms")))
    losses = {
        by_temperature(row): found.mean for row in schedules(rows) if (found := section.interval(row, "val_loss"))
    }
    return {
        "best_constant": constant(best) if best else None,
        "schedules_by_val_loss": sorted(losses, key=lambda name: losses[name]),
        "rows": [row_report(section, row) | metrics_report(section, row, metrics) for row in rows],
    }


def specialization(section: Section, rows: Sequence[Row]) -> dict[str, Any]:
    """Each row's inequality of load, change of entropy, final shares by rank, and specialization."""
    return {
        "rows": [
            row_report(section, row)
            | metrics_report(section, row, SPECIALIZATION)
            | {
                "share_variance": interval_report(share_variance(section, row)),
                "entropy_change_nats": interval_report(entropy_change(section, row)),
                "shares_by_rank": [interval_report(cell) for cell in final_shares(usages(section, row))],
            }
            for row in rows
        ]
    }


def row_report(section: Section, row: Row) -> dict[str, Any]:
    """What a row is, and which of its seeds have finished."""
    return {
        "label": by_temperature(row),
        "option": row.key.get("temperature"),
        "temperature": constant(row),
        "seeds": sorted(row.runs),
        "missing_seeds": sorted(row.expected.keys() - row.runs.keys()),
        "causal": section.causal(row) if row.runs else None,
        "stale": section.stale(row),
    }


def metrics_report(section: Section, row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    """Mean, interval and chance floor of each metric; null where no run has it."""
    return {
        "metrics": {
            metric: (interval_report(section.interval(row, metric)) or {}) | {"floor": section.floor(row, metric)}
            for metric in metrics
        }
    }


def interval_report(interval: Interval | None) -> dict[str, Any] | None:
    """The interval as n, mean, low and high."""
    return asdict(interval) if interval else None
