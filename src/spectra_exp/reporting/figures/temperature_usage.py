"""The temperature study's load on the experts: bars per temperature, a heat map, inequality over the temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spectra_exp.presentation.panels import BarPanel, HeatPanel, Page, with_seeds
from spectra_exp.presentation.style import DOUBLE
from spectra_exp.reporting.figures.expert_usage import (
    INFERENCE_RULE,
    RANKED,
    final_shares,
    no_snapshots,
    usages,
)
from spectra_exp.reporting.figures.labels import marked, with_context
from spectra_exp.reporting.figures.temperature_curves import final_panel
from spectra_exp.reporting.figures.temperatures import by_temperature, constants, over_temperature, temperature_marks
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.statistics.intervals import Interval, mean_interval

SHARE = "Share of assignments"


def utilization(section: Section, rows: Sequence[Row]) -> Page:
    """A panel of bars, by rank of the expert, for each temperature and schedule."""
    panels = []
    for row, mark in zip(rows, temperature_marks(rows), strict=True):
        if by_seed := usages(section, row):
            bars = final_shares(by_seed)
            title = marked(section, row, by_temperature(row))
            panels.append(BarPanel(title, "Expert, by rank", SHARE, bars, mark.colour, 1 / len(bars)))
    page = Page(tuple(panels), 4, (DOUBLE, 0.7 + 1.3 * -(-len(panels) // 4)))
    return _noted(section, rows, page, "bars", "Dashed: even share.")


def utilization_analysis(section: Section, rows: Sequence[Row]) -> Page:
    """Shares by temperature and rank, and over the temperature their Gini coefficient, variance and CV."""
    found = {by_temperature(row): final_shares(own) for row in constants(rows) if (own := usages(section, row))}
    means = [cell.mean for cells in found.values() for cell in cells if cell]
    heat = HeatPanel(
        "",
        "Expert, by rank",
        "",
        tuple(str(i + 1) for i in range(max(map(len, found.values()), default=0))),
        tuple(found),
        tuple(found.values()),
        (min(means, default=0.0), max(means, default=1.0)),
        SHARE,
    )
    panels = (
        *([heat] if found else []),
        final_panel(section, rows, "load_gini"),
        over_temperature(rows, {"": lambda row: share_variance(section, row)}, "Variance of the shares"),
        final_panel(section, rows, "load_cv"),
    )
    page = Page(panels, 2, (DOUBLE, 5.4))
    bounded = any(cell.half_width is not None for cell in heat.intervals)
    note = "Heat map: half-width under each mean." if heat.printed and bounded else ""
    return _noted(section, rows, page, "band", note)


def share_variance(section: Section, row: Row) -> Interval | None:
    """The interval over seeds of the variance of the experts' final shares (population), a mean over layers."""
    return mean_interval(float(found.shares_TLE[-1].var(axis=1).mean()) for found in usages(section, row).values())


def _noted(section: Section, rows: Sequence[Row], page: Page, spread: str, note: str) -> Page:
    notes = (f"{RANKED} Mean over layers. {INFERENCE_RULE} {note}",)
    page = replace(page, footnotes=notes, absent=no_snapshots(section, rows))
    return with_context(with_seeds(page, spread), section, rows)
