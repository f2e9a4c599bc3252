"""A declared table filled from the rows of its study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from spectra_exp.config.names import METHOD_FACTORS
from spectra_exp.presentation.text import count_text, interval_text
from spectra_exp.reporting.collect import INFERENCE, METHOD_COLUMNS, SIZE_COLUMNS, TRAINING_RULE, base_name
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.noise import claim_notes
from spectra_exp.reporting.tables.gaps import row_gaps
from spectra_exp.reporting.tables.settings import settings_part
from spectra_exp.reporting.tables.spec import Grid, Panel, Part, Table, TableSpec, record_grid
from spectra_exp.reporting.tables.verdicts import ADDED, SEEDS_ALONE, direction, verdict
from spectra_exp.runs.pairing import GROUP_KEYS, LOSSES, PAIRED, is_prediction
from spectra_exp.statistics.comparison import TOO_FEW, Comparison
from spectra_exp.statistics.corrections import stars
from spectra_exp.studies.cells import reference_of


def build_table(spec: TableSpec, sections: Iterable[Section]) -> Table:
    """The table; a section without any row that the table wants is left out."""
    import pandas as pd

    records, parts, gaps = [], [], []
    for section in (spanned := list(sections)):
        rows = section.find(spec.only)
        if not rows:
            continue
        metrics = _columns(spec, section, rows)
        own = [_record(section, row, metrics) for row in rows]
        notes = _notes(section, rows, own)
        notes += _add_tests(spec, section, rows, own)
        if spec.pareto:
            for record, on_front in zip(own, section.front(rows, spec.pareto), strict=True):
                record["pareto"] = "yes" if on_front else ""
        records += own
        named = [record | {"method": row.method} for record, row in zip(own, rows, strict=True)]
        grids = [_grid(panel, section, rows, named, spec.pareto) for panel in _panels(spec, named)]
        grids += _floor_grids(spec, section, named)
        parts.append(Part(section.title, grids, notes))
        gaps += row_gaps(spec, section, rows)
    parts += _over_settings(spec, spanned)
    frame = pd.DataFrame(records, dtype=object)
    return Table(spec.name, spec.title, frame, parts, gaps)


def _over_settings(spec: TableSpec, sections: Iterable[Section]) -> list[Part]:
    """The methods over the sections of a study, where there are several."""
    settings = {
        section.title: (section, {row.label: row for row in section.find(spec.only)})
        for section in sections
        if section.study is not None and not section.choosing
    }
    baselines = [section.find(spec.baseline) for section, _ in settings.values() if spec.baseline]
    return settings_part(settings, spec.tested, next((row.label for rows in baselines for row in rows), ""))


def metric_columns(section: Section, row: Row, metric: str) -> dict[str, Any]:
    """`<metric>` the printed cell, `_mean`, `_ci_low`, `_ci_high`, `_n` over seeds, and the mean chance `_floor`."""
    interval = section.interval(row, metric)
    return {
        metric: interval_text(interval),
        f"{metric}_mean": interval.mean if interval else None,
        f"{metric}_ci_low": interval.low if interval else None,
        f"{metric}_ci_high": interval.high if interval else None,
        f"{metric}_n": interval.n if interval else 0,
        f"{metric}_floor": section.floor(row, metric),
    }


def beside(section: Section, row: Row) -> dict[str, Any]:
    """What stands beside every comparison: seeds, causality, sizes, and what the runs were made with."""
    runs = section.runs(row)
    return {
        "n": len(row.runs),
        "n_expected": len(row.expected) or len(row.runs),
        "stale": section.stale(row),
        **{column: agreed(run[column] for run in runs) for column in (*SIZE_COLUMNS, *GROUP_KEYS)},
        **_measured_sizes(runs),
    }


def _measured_sizes(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The seeds' mean sizes of a rule with a varying number of experts: each seed measured its own."""
    if not runs or not all(run["size_as_measured"] for run in runs):
        return {}
    return {column: fmean(run[column] for run in runs) for column in ("active_parameters", "flops_per_token")}


def agreed(values: Iterable[Any]) -> Any:
    """The one value that all runs of a cell share, None without any, the values side by side if they differ."""
    found = list(dict.fromkeys(value for value in values if value is not None))
    return found[0] if len(found) == 1 else " / ".join(sorted(map(str, found))) or None


def _record(section: Section, row: Row, metrics: Iterable[str]) -> dict[str, Any]:
    runs = section.runs(row)
    methods = {column: agreed(run[column] for run in runs) for column in METHOD_COLUMNS if column != "label"}
    record = {
        "section": section.title,
        **{factor: row.key.get(factor) for factor in section.factors},
        "label": row.label,
        **{column: value for column, value in methods.items() if column not in section.factors},
        "cell_id": agreed(run["cell_id"] for run in runs),
        **beside(section, row),
    }
    if section.study is None:
        record["pairing"] = section.unpaired.get(record["cell_id"], PAIRED)
    for metric in metrics:
        record |= metric_columns(section, row, metric)
    return record


def _columns(spec: TableSpec, section: Section, rows: list[Row]) -> list[str]:
    """The table's metrics, each followed by its figures under the other rules of routing that the runs measured."""
    measured = section.measured(rows)
    wanted = spec.metrics if spec.study else tuple(dict.fromkeys([*spec.metrics, *sorted(measured)]))
    others = [m for m in sorted(measured) if TRAINING_RULE in m or INFERENCE in m]
    found: list[str] = []
    for metric in wanted:
        found.append(metric)
        found += [m for m in others if base_name(m) == metric]
    return list(dict.fromkeys(found))


def _add_tests(spec: TableSpec, section: Section, rows: list[Row], records: list[dict[str, Any]]) -> list[str]:
    """Add each tested metric's difference from the reference row; returns what a reader must know about it."""
    if not spec.tested:
        return []
    tests: dict[tuple[int, str], Comparison] = {}
    names: dict[str, None] = {}
    for index, row in enumerate(rows):
        reference = reference_of(row, section.rows, spec.baseline)
        if reference is None or not row.runs or not reference.runs:
            continue
        names.setdefault(reference.label)
        for metric in spec.tested:
            if is_prediction(metric) and not all(section.causal(r) for r in (row, reference)):
                continue
            tests[index, metric] = section.compare(row, reference, metric)
    corrected = spec.correction({key: test.p for key, test in tests.items()})
    for (index, metric), test in tests.items():
        record, p = records[index], corrected[index, metric]
        record |= {
            f"{metric}_difference": test.difference,
            f"{metric}_p": test.p,
            f"{metric}_p_corrected": p,
            f"{metric}_test": test.method or test.note,
            f"{metric}_verdict": verdict(test, p, metric),
        }
        record[metric] = " ".join(filter(None, [record[metric], stars(p)]))
    if not names:
        wanted = ", ".join(f"{key}={value}" for key, value in spec.baseline.items())
        return [f"No tests: no finished run of the row to test against ({wanted})."]
    by = spec.correction.__name__.replace("_", "-").title()
    head = f"Stars: against {' or '.join(names)}, {by} over {sum(p is not None for p in corrected.values())} tests."
    own = [(rows[i], rows[i].label, m, test, corrected[i, m]) for (i, m), test in tests.items()]
    return [head, *test_notes(section, own)]


def test_notes(section: Section, tests: Sequence[tuple[Row, str, str, Comparison, float | None]]) -> list[str]:
    """What a reader must know of comparisons (row, whose, metric, test, corrected p) beside their figures.

    Why those with figures on both sides have no p-value stands last, one line a reason.
    """
    notes = claim_notes(section, tests)
    notes += [SEEDS_ALONE] if any(m in LOSSES and test.p is not None for _, _, m, test, _ in tests) else []
    notes += [ADDED.capitalize()] if any(test.sequential for *_, test, _ in tests) else []
    reasons: dict[str, dict[str, None]] = {}
    for _, whose, metric, test, _ in tests:
        # A comparison without figures on both sides lacks runs or the metric, which the gaps say.
        if test.p is None and (test.difference is not None or test.note != TOO_FEW):
            reasons.setdefault(test.note, {})[f"{whose} ({metric})"] = None
    return [*notes, *(f"No test, {reason}: {', '.join(names)}." for reason, names in reasons.items())]


def _panels(spec: TableSpec, records: list[dict[str, Any]]) -> list[Panel]:
    """The panels without the metrics that are no study's to have and that no row has."""
    shown = []
    for panel in spec.panels:
        # Every run is measured under the rules of inference that are not its own; a study's other gaps stay open.
        wanted = [m for m in panel.metrics if (spec.study and INFERENCE not in m) or any(r.get(m) for r in records)]
        if wanted or panel.beside:
            shown.append(replace(panel, metrics=tuple(wanted)))
    return shown


def _floor_grids(spec: TableSpec, section: Section, records: list[dict[str, Any]]) -> list[Grid]:
    """What chance gives for each row, in the metrics that have a floor; none where no row has any."""
    metrics = [m for m in spec.metrics if any(r.get(f"{m}_floor") is not None for r in records)]
    if not metrics:
        return []
    shown = {factor: factor.rpartition(".")[2] for factor in _label_columns(section, records)}
    shown |= {f"{metric}_floor": metric for metric in metrics}
    return [record_grid("What chance gives (mean over seeds)", shown, records)]


def _grid(
    panel: Panel, section: Section, rows: Sequence[Row], records: list[dict[str, Any]], pareto: tuple[str, ...]
) -> Grid:
    """What is printed: the label or the varied factors, then what stands beside, then metrics."""
    factors = _label_columns(section, records)
    size = ["n", "causal", "active", "total", "FLOPs/token"] if panel.beside else []
    front = ["pareto"] if pareto and panel.beside else []
    metrics = panel.metrics
    body = [
        [
            *(str(record.get(f) or "") for f in factors),
            *(_size_cells(record) if panel.beside else []),
            *(str(record["pareto"]) for _ in front),
            *(str(record.get(m, "")) for m in metrics),
        ]
        for record in records
    ]
    headers = [*(f.rpartition(".")[2] for f in factors), *size, *front, *metrics]
    first = len(headers) - len(metrics)
    means = list(zip(*section.ranked_means(rows, metrics), strict=True))
    best = {(row, first + i) for i, m in enumerate(metrics) for row in _best(m, means[i])}
    return Grid(panel.title, headers, body, frozenset(best))


def _label_columns(section: Section, records: list[dict[str, Any]]) -> list[str]:
    """The columns that name a row: its label, or of a study that varies settings these and what tells methods apart."""
    settings = [f for f in section.factors if f not in METHOD_FACTORS]
    if not settings:
        return ["label"]
    methods = [f for f in METHOD_FACTORS if f in section.factors and len({record.get(f) for record in records}) > 1]
    return [*(methods if len(methods) < 2 else ["method"]), *settings]


def _best(metric: str, means: Sequence[float | None]) -> list[int]:
    """The places of the best of these means; none where neither direction is better."""
    better = direction(metric)
    found = {i: mean for i, mean in enumerate(means) if mean is not None}
    if better == "none" or len(found) < 2:
        return []
    best = min(found.values()) if better == "lower" else max(found.values())
    return [i for i, value in found.items() if value == best]


def _size_cells(record: Mapping[str, Any]) -> list[str]:
    causal = {True: "yes", False: "no", None: ""}.get(record["causal"], str(record["causal"]))
    active, total, flops = (_short(record[k]) for k in ("active_parameters", "total_parameters", "flops_per_token"))
    measured = " (as measured)" if record["size_as_measured"] is True else ""
    return [str(record["n"]), causal, active + measured, total, flops + measured]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else count_text(value)


def _notes(section: Section, rows: list[Row], records: list[dict[str, Any]]) -> list[str]:
    """What a reader must know about the rows: stale ones, odd figures, groups that may not be compared."""
    notes = []
    stale = [record["label"] for record in records if record["stale"]]
    if len(stale) > 1 and len(stale) == sum(bool(record["n"]) for record in records):
        notes.append("All rows are stale: run by other code than today's (refresh=stale runs them again).")
    elif stale:
        notes.append(f"Stale, run by other code than today's (refresh=stale runs them again): {', '.join(stale)}.")
    for key in GROUP_KEYS:
        values = {record[key] for record in records if record[key] is not None}
        if len(values) > 1:
            listed = ", ".join(sorted(str(value)[:8] for value in values))
            notes.append(f"Rows differ in {key.replace('_', ' ')} ({listed}); such rows are not tested.")
    labels = {record["cell_id"]: record["label"] for record in records}
    notes += [f"Not paired: {labels[cell]}: {reason}." for cell, reason in section.unpaired.items()]
    return notes + odd_notes(section, rows)


def odd_notes(section: Section, rows: Iterable[Row]) -> list[str]:
    """What is wrong with runs that are in the rows all the same."""
    odd = section.collected.odd
    return [f"{run}: {odd[run]}." for row in rows for run in row.runs.values() if run in odd]
