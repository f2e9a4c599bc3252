"""What the sweeps found: curves over one setting, heat maps over two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spectra_exp.config.names import setting_text
from spectra_exp.config.typed import value_text
from spectra_exp.presentation.panels import HeatPanel, Line, LinePanel, Page, with_seeds
from spectra_exp.presentation.style import DOUBLE, method_mark
from spectra_exp.reporting.collect import INFERENCE, TRAINING_RULE
from spectra_exp.reporting.figures.labels import NOT_CAUSAL, RULES, arms, marked, metric_label, with_context
from spectra_exp.reporting.figures.training import floors_of
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.tables.verdicts import direction

METRICS = ("val_loss", "load_cv", "max_vio", "expert_overlap")
# Rules of routing that a picture shows, where they were measured.
Rules = Literal["", "own", "all", "inference"]
SHOWN_RULES: dict[Rules, tuple[str, ...]] = {
    "": ("",),
    "own": ("", TRAINING_RULE),
    "all": tuple(RULES),
    "inference": tuple(rule for rule in RULES if INFERENCE in rule),
}


@dataclass(frozen=True)
class SweepCurves:
    """A page with a panel for each metric and a line for each method and rule of routing.

    `over`: the keys whose values make a row's place. `scale`: category puts the values at equal distances. `joined`:
    whether neighbouring values are joined. `rules`: which of `SHOWN_RULES` are shown, where measured. `texts`: how
    values are printed that are not printed as they are. `apart`: what stands apart beside methods, in the report.
    """

    over: Sequence[str]
    label: str = ""
    metrics: Sequence[str] = METRICS
    scale: Literal["linear", "log", "category"] = "category"
    joined: bool = True
    rules: Rules = "own"
    texts: Mapping[Any, str] = field(default_factory=dict)
    apart: str = ""

    def place(self, row: Row) -> str:
        """The row's place as text."""
        texts = _printed(self.texts)
        return " ".join(texts.get(row.key[key], row.key[key]) for key in self.over if key in row.key)

    def __call__(self, section: Section, rows: Sequence[Row]) -> Page:
        """The page of these rows."""
        places = {row_place: i for i, row_place in enumerate(dict.fromkeys(self.place(row) for row in rows))}
        ticks = tuple((self._x(row, places), self.place(row)) for row in rows) if self.scale != "linear" else ()
        panels = tuple(
            LinePanel(
                "",
                self.label or ", ".join(key.rpartition(".")[2] for key in self.over),
                metric_label(metric),
                self._lines(section, rows, metric, places),
                x_scale="log" if self.scale == "log" else "linear",
                ticks=tuple(dict.fromkeys(ticks)),
                floors=floors_of(section, rows, metric),
            )
            for metric in self.metrics
        )
        columns = 2 if len(panels) != 3 else 3
        page = Page(panels, columns, (DOUBLE, 0.8 + 1.7 * math.ceil(len(panels) / columns)))
        return with_context(with_seeds(page, "band" if self.joined else "bars"), section, rows)

    def _lines(self, section: Section, rows: Sequence[Row], metric: str, places: Mapping[str, int]) -> tuple[Line, ...]:
        # No line mixes two methods.
        methods: dict[str, list[Row]] = {}
        for row in rows:
            methods.setdefault(row.method, []).append(row)
        rules, measured = SHOWN_RULES[self.rules], section.measured(rows)
        several = sum(any(m + suffix in measured for m in self.metrics) for suffix in rules) > 1
        shown = [suffix for suffix in rules if metric + suffix in measured]
        lines = []
        for method, own in methods.items():
            for number, suffix in enumerate(RULES):
                points = [section.interval(row, metric + suffix) for row in own]
                if suffix not in shown or not any(points):
                    continue
                shift = 0.12 * (shown.index(suffix) - (len(shown) - 1) / 2) if self.scale == "category" else 0.0
                at = {self._x(row, places) + shift: point for row, point in zip(own, points, strict=True)}
                x = tuple(sorted(at))
                label = _rule_label(section, own, method, suffix, several=several)
                lines.append(Line(label, method_mark(method, number), x, tuple(at[value] for value in x), self.joined))
        return tuple(lines)

    def _x(self, row: Row, places: Mapping[str, int]) -> float:
        return float(places[self.place(row)]) if self.scale == "category" else float(row.values[self.over[0]])


def _printed(texts: Mapping[Any, str]) -> dict[str, str]:
    """Texts by values as rows have them."""
    return {value_text(value): text for value, text in texts.items()}


def _rule_label(section: Section, rows: Sequence[Row], method: str, suffix: str, several: bool) -> str:
    if suffix:
        return f"{method}, {RULES[suffix]}"
    name = method if all(section.causal(row) for row in rows if row.runs) else method + NOT_CAUSAL
    return f"{name}, {RULES[suffix]}" if several else name


@dataclass(frozen=True)
class SweepHeat:
    """A page of heat maps: a row of panels for each arm and metric, a column for each value of `panels`.

    `x`, `y`: the keys along the axes. `texts`: the values of `panels`, and how they are printed; those of the rows
    unless given. `rules`: which of `SHOWN_RULES` are shown.
    """

    x: str
    y: str
    panels: str
    metrics: Sequence[str]
    x_label: str = ""
    y_label: str = ""
    texts: Mapping[Any, str] = field(default_factory=dict)
    rules: Rules = ""

    def __call__(self, section: Section, rows: Sequence[Row]) -> Page:
        """The page of these rows."""
        values = dict.fromkeys(row.key[self.panels] for row in rows if self.panels in row.key)
        found, texts = [], _printed(self.texts) or {value: setting_text(self.panels, value) for value in values}
        measured = [metric + rule for rule in SHOWN_RULES[self.rules] for metric in self.metrics]
        for own in arms(rows, ("osr",)).values():
            columns = [[row for row in own if row.key.get(self.panels) == value] for value in texts]
            for metric in measured:
                if means := [interval.mean for row in own if (interval := section.interval(row, metric))]:
                    limits = min(means), max(means)
                    found += [
                        self._panel(section, own, some, metric, limits, f"{own[0].method}, {text}")
                        for some, text in zip(columns, texts.values(), strict=True)
                    ]
        count = max(1, len(texts))
        page = Page(tuple(found), count, (DOUBLE, 0.45 + 1.75 * math.ceil(len(found) / count)))
        if any(panel.best for panel in found):
            page = replace(page, footnotes=("Boxed: the best mean of the panel among causal points.",))
        return with_context(with_seeds(page, "half-width under each mean"), section, rows)

    def _panel(
        self,
        section: Section,
        arm: Sequence[Row],
        rows: Sequence[Row],
        metric: str,
        limits: tuple[float, float],
        title: str,
    ) -> HeatPanel:
        """The panel of some of an arm's rows; a place of the arm that none of them has stays empty."""
        across, down = (tuple(dict.fromkeys(row.key[axis] for row in arm)) for axis in (self.x, self.y))
        by_place = {(row.key[self.y], row.key[self.x]): row for row in rows}
        cells = tuple(
            tuple(section.interval(by_place[y, x], metric) if (y, x) in by_place else None for x in across)
            for y in down
        )
        causal = {place for place, row in by_place.items() if row.runs and section.causal(row)}
        means = {
            (j, i): cell.mean
            for j, y in enumerate(down)
            for i, x in enumerate(across)
            if (cell := cells[j][i]) is not None and (y, x) in causal
        }
        title = marked(section, rows[0], title) if rows and rows[0].runs else title
        labels = self.x_label or self.x, self.y_label or self.y
        best = _best(means, metric)
        return HeatPanel(title, *labels, across, down, cells, limits, metric_label(metric), best=best)


def _best(means: Mapping[tuple[int, int], float], metric: str) -> tuple[int, int] | None:
    better = direction(metric)
    # Whether another rule of inference is causal is not measured.
    if len(means) < 2 or better == "none" or INFERENCE in metric:
        return None
    return (min if better == "lower" else max)(means, key=lambda place: means[place])
