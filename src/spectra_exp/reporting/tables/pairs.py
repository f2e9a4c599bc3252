"""Tables of two methods side by side over sizes: a row a size, a group of columns a method, and their difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from spectra_exp.config.names import METHOD_FACTORS, method_name, setting_text
from spectra_exp.presentation.text import count_text, signed_text
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.tables.build import beside, metric_columns, odd_notes, test_notes
from spectra_exp.reporting.tables.gaps import row_gaps
from spectra_exp.reporting.tables.settings import settings_part
from spectra_exp.reporting.tables.spec import Choice, Gap, Grid, Panel, Part, Table, TableSpec
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.corrections import holm, stars

# What stands beside each method's figures.
SIZE_COLUMNS = ("n", "causal", "active_parameters", "total_parameters", "flops_per_token")
METHOD_AGAINST = "SPECTRA − Switch"


@dataclass(frozen=True)
class PairSpec:
    """A table over the sizes of a study: the metrics of `method` beside those of `against`, at equal settings.

    `tested`: the metrics whose paired difference (method − against) is shown; the table's tests are one family (Holm).
    """

    name: str
    title: str
    study: str
    method: Choice
    against: Choice
    metrics: tuple[str, ...]
    tested: tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """One row: the settings that both methods share, and each method's cell."""

    settings: dict[str, str]
    method: Row | None
    against: Row | None

    @property
    def label(self) -> str:
        """The settings in words."""
        return ", ".join(setting_text(key, value) for key, value in self.settings.items())

    @property
    def cells(self) -> list[Row]:
        return [row for row in (self.against, self.method) if row is not None]


def build_pairs(spec: PairSpec, sections: Iterable[Section]) -> Table:
    """The table; every section has a part for each rule (osr) that the method has there."""
    import pandas as pd

    records, parts, gaps = [], [], []
    methods: set[str] = set()
    for section in sections:
        rules = dict.fromkeys(row.key.get("osr", "") for row in section.find(spec.method))
        for rule in rules:
            sizes = pair_sizes(section, spec.method, spec.against, rule)
            methods |= {_short(size.method) for size in sizes if size.method}
            own, notes = _records(spec, section, rule, sizes)
            records += own
            title = " ".join(filter(None, [section.title, rule]))
            parts.append(Part(title, _grids(spec, own, sizes), notes))
            parts += _over_sizes(spec, section, sizes)
            gaps += _gaps(spec, section, sizes)
    return Table(spec.name, spec.title, pd.DataFrame(records, dtype=object), parts, gaps, methods=methods)


def _over_sizes(spec: PairSpec, section: Section, sizes: list[Size]) -> list[Part]:
    """Both methods over the sizes that have them."""
    whole = {size.label: (size.against, size.method) for size in sizes if size.against and size.method}
    settings = {label: (section, {_short(row): row for row in pair}) for label, pair in whole.items()}
    return settings_part(settings, spec.tested, next((_short(against) for against, _ in whole.values()), ""))


def pair_sizes(section: Section, method: Choice, against: Choice, rule: str) -> list[Size]:
    """The rows of both methods joined on their settings, in the order of the file."""
    found: dict[tuple[tuple[str, str], ...], list[Row | None]] = {}
    for place, wanted in enumerate((method, against)):
        for row in section.find(wanted):
            if row.key.get("osr", rule) == rule:
                found.setdefault(_settings(row), [None, None])[place] = row
    return [Size(dict(settings), *pair) for settings, pair in found.items()]


def _settings(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in row.key.items() if key not in METHOD_FACTORS)


def _records(spec: PairSpec, section: Section, rule: str, sizes: list[Size]) -> tuple[list[dict[str, Any]], list[str]]:
    tests: dict[tuple[int, str], Comparison] = {
        (index, metric): section.compare(size.method, size.against, metric)
        for index, size in enumerate(sizes)
        for metric in spec.tested
        if size.method and size.against
    }
    corrected = holm({key: test.p for key, test in tests.items()})
    records = []
    for index, size in enumerate(sizes):
        record: dict[str, Any] = {"section": section.title, "osr": rule, **size.settings}
        for row in size.cells:
            columns = beside(section, row)
            for metric in spec.metrics:
                columns |= metric_columns(section, row, metric)
            record |= {f"{_short(row)}: {key}": value for key, value in columns.items()}
        for metric in spec.tested:
            record |= _difference(metric, tests.get((index, metric)), corrected.get((index, metric)))
        records.append(record)
    count = sum(p is not None for p in corrected.values())
    head = f"Δ: {METHOD_AGAINST}, paired over seeds, Holm over {count} tests."
    pairs = [
        (method, sizes[i].label, m, test, corrected[i, m])
        for (i, m), test in tests.items()
        if (method := sizes[i].method)
    ]
    odd = odd_notes(section, (row for size in sizes for row in size.cells))
    return records, [head, *test_notes(section, pairs), *odd]


def _difference(metric: str, test: Comparison | None, p: float | None) -> dict[str, Any]:
    shown = "" if test is None or test.difference is None else signed_text(test.difference)
    return {
        f"Δ {metric}": " ".join(filter(None, [shown, stars(p)])),
        f"{metric}_difference": test and test.difference,
        f"{metric}_difference_ci_low": test and test.ci_low,
        f"{metric}_difference_ci_high": test and test.ci_high,
        f"{metric}_p": test and test.p,
        f"{metric}_p_corrected": p,
        f"{metric}_test": test and (test.method or test.note),
    }


def _grids(spec: PairSpec, records: list[dict[str, Any]], sizes: list[Size]) -> list[Grid]:
    """What the sizes are, then a grid for each metric: both methods, and the difference where it is tested."""
    settings = list(dict.fromkeys(key for size in sizes for key in size.settings))
    names = list(dict.fromkeys(_short(row) for size in sizes for row in size.cells))
    beside_them = [f"{name}: {column}" for name in names for column in SIZE_COLUMNS]
    chosen = {"Sizes": beside_them} | {
        metric: [*(f"{name}: {metric}" for name in names), *([f"Δ {metric}"] if metric in spec.tested else [])]
        for metric in spec.metrics
    }
    grids = []
    for title, columns in chosen.items():
        body = [[_cell(record.get(c), c) for c in (*settings, *columns)] for record in records]
        grids.append(Grid(title, [*(key.rpartition(".")[2] for key in settings), *columns], body))
    return grids


def _cell(value: Any, header: str) -> str:
    if header.endswith("causal"):
        return {True: "yes", False: "no", None: ""}.get(value, str(value))
    if header.endswith(("_parameters", "_per_token")) and not isinstance(value, str):
        return count_text(value)
    return "" if value is None else str(value)


def _gaps(spec: PairSpec, section: Section, sizes: list[Size]) -> list[Gap]:
    plain = TableSpec(spec.name, spec.title, spec.study, (Panel("", spec.metrics),))
    return [gap for size in sizes for gap in row_gaps(plain, section, size.cells)]


def _short(row: Row) -> str:
    """The method without its rule, which heads the part."""
    return method_name({key: value for key, value in row.key.items() if key != "osr"})
