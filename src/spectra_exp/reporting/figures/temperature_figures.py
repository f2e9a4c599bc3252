"""The temperature study's figures: the whole ablation, dynamics of routing, entropy, schedules, load on the experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from spectra_exp.presentation.panels import BarPanel, HeatPanel, Line, LinePanel, Page, Panel, TextPanel, with_seeds
from spectra_exp.presentation.style import DOUBLE
from spectra_exp.presentation.text import interval_text
from spectra_exp.reporting.figures.expert_usage import (
    INFERENCE_RULE,
    RANKED,
    final_shares,
    no_snapshots,
    usages,
)
from spectra_exp.reporting.figures.labels import marked, metric_label, with_context
from spectra_exp.reporting.figures.temperatures import (
    best_constant,
    by_temperature,
    constant,
    constants,
    over_temperature,
    schedules,
    temperature_marks,
)
from spectra_exp.reporting.figures.training import (
    Curve,
    curve_panel,
    floors_of,
    lost,
    over_seeds,
    training_curves,
    without_curves,
)
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.statistics.intervals import Interval, mean_interval

SUMMARY = ("val_loss", "val_accuracy", "routing_entropy", "routing_confidence", "load_gini", "load_cv")
SHARES = ("routing_entropy_norm", "routing_confidence", "score_gap", "load_gini")
ENTROPY = Curve("routing_entropy")
SHARE = "Share of assignments"


def comprehensive(section: Section, rows: Sequence[Row]) -> Page:
    """Losses of every constant over training, final figures over the temperature, and a table of all rows."""
    curves = (Curve("train_loss", "train"), Curve("val_loss", begin=0.5))
    ends = ("val_loss", "val_accuracy", "routing_entropy", "load_gini")
    panels = (
        *_curve_panels(section, constants(rows), curves),
        *(final_panel(section, rows, metric) for metric in ends),
    )
    lines = []
    for row in [*constants(rows), *(row for row in rows if constant(row) is None)]:
        if row.runs:
            cells = (interval_text(section.interval(row, metric)) for metric in SUMMARY)
            lines.append((marked(section, row, by_temperature(row)), str(len(row.runs)), *cells))
    table = TextPanel(("Temperature", "n", *map(metric_label, SUMMARY)), tuple(lines))
    return _page(section, rows, curves, Page(panels, 2, (DOUBLE, 8.2), below=table))


def dynamics(section: Section, rows: Sequence[Row]) -> Page:
    """Entropy, confidence and load-balance loss over training, and the final routing over the temperature."""
    curves = (ENTROPY, Curve("routing_confidence"), Curve("load_balance_loss", "train"))
    shares = {metric_label(metric): partial(section.interval, metric=metric) for metric in SHARES}
    panels = (
        *_curve_panels(section, constants(rows), curves),
        over_temperature(rows, shares, "At the end of training"),
    )
    return _page(section, rows, curves, Page(panels, 2, (DOUBLE, 4.9)))


def entropy(section: Section, rows: Sequence[Row]) -> Page:
    """Routing entropy over training, its rate of change, its whole change and its end over the temperature."""
    own = constants(rows)
    rates = tuple(
        Line(marked(section, row, by_temperature(row)), mark, *over_seeds(change_rates(section, row)))
        for row, mark in zip(own, temperature_marks(own), strict=True)
    )
    panels = (
        *_curve_panels(section, own, (ENTROPY,)),
        LinePanel("", "Step", "Entropy change\n(nats per 100 steps)", tuple(line for line in rates if line.x)),
        over_temperature(rows, {"": partial(entropy_change, section)}, "Entropy, end − begin (nats)"),
        final_panel(section, rows, "routing_entropy_norm"),
    )
    return _page(section, rows, (ENTROPY,), Page(panels, 2, (DOUBLE, 4.7)))


def schedule_comparison(section: Section, rows: Sequence[Row]) -> Page:
    """Loss, accuracy and temperature of the schedules over training beside the best constant, and their final loss."""
    best = best_constant(section, rows)
    own = [*schedules(rows), *([best] if best else [])]
    curves = (Curve("val_loss"), Curve("val_accuracy"), Curve("temperature", "train"))
    ends = [*own, *(row for row in rows if row.key.get("temperature") == "best_long")]
    lines = tuple(
        Line(marked(section, row, by_temperature(row)), mark, (float(i),), (section.interval(row, "val_loss"),), False)
        for i, (row, mark) in enumerate(zip(ends, temperature_marks(ends), strict=True))
        if row.runs
    )
    ticks = tuple((float(i), _short(row)) for i, row in enumerate(ends))
    panels = (
        *_curve_panels(section, own, curves),
        LinePanel("", "", metric_label("val_loss") + ", end", lines, ticks=ticks),
    )
    note = (f"Best constant by mean validation loss: {by_temperature(best)}.",) if best else ()
    return _page(section, ends, curves, Page(panels, 2, (DOUBLE, 4.7), note))


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
    panels: tuple[Panel, ...] = (
        *([heat] if found else []),
        final_panel(section, rows, "load_gini"),
        over_temperature(rows, {"": partial(share_variance, section)}, "Variance of the shares"),
        final_panel(section, rows, "load_cv"),
    )
    page = Page(panels, 2, (DOUBLE, 5.4))
    bounded = any(cell.half_width is not None for cell in heat.intervals)
    note = "Heat map: half-width under each mean." if heat.printed and bounded else ""
    return _noted(section, rows, page, "band", note)


def change_rates(section: Section, row: Row) -> dict[int, dict[int, float]]:
    """By seed, the change of the routing entropy per 100 steps between evaluations, at the later one."""
    found = {}
    for seed, curve in training_curves(section, row, "validation", "routing_entropy").items():
        found[seed] = {b: 100 * (curve[b] - curve[a]) / (b - a) for a, b in pairwise(sorted(curve))}
    return found


def entropy_change(section: Section, row: Row) -> Interval | None:
    """The interval over seeds of the routing entropy at the last evaluation minus that at the first."""
    curves = training_curves(section, row, "validation", "routing_entropy").values()
    return mean_interval(curve[max(curve)] - curve[min(curve)] for curve in curves if len(curve) > 1)


def share_variance(section: Section, row: Row) -> Interval | None:
    """The interval over seeds of the variance of the experts' final shares (population), a mean over layers."""
    return mean_interval(float(found.shares_TLE[-1].var(axis=1).mean()) for found in usages(section, row).values())


def final_panel(section: Section, rows: Sequence[Row], metric: str) -> LinePanel:
    """A metric at the end of training over the constant temperatures, with its chance floor."""
    ends = {"": partial(section.interval, metric=metric)}
    return over_temperature(rows, ends, metric_label(metric), floors_of(section, rows, metric))


def _curve_panels(section: Section, rows: Sequence[Row], curves: Sequence[Curve]) -> tuple[LinePanel, ...]:
    return tuple(curve_panel(curve, section, rows, by_temperature, temperature_marks, "") for curve in curves)


def _page(section: Section, rows: Sequence[Row], curves: Sequence[Curve], page: Page) -> Page:
    page = replace(page, absent=without_curves(curves, section, rows), remarks=lost(curves, section, rows))
    return with_context(with_seeds(page), section, rows)


def _short(row: Row) -> str:
    return "Best, 2×" if row.key.get("temperature") == "best_long" else by_temperature(row)


def _noted(section: Section, rows: Sequence[Row], page: Page, spread: str, note: str) -> Page:
    notes = (f"{RANKED} Mean over layers. {INFERENCE_RULE} {note}",)
    page = replace(page, footnotes=notes, absent=no_snapshots(section, rows))
    return with_context(with_seeds(page, spread), section, rows)
