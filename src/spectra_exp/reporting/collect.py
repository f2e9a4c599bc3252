"""Every run's summary as tables: one row a run, and one long table of all its metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.downstream.tasks import SCORE
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.measure import METRICS
from spectra_exp.measure.others import figure
from spectra_exp.measure.ranges import Sizes
from spectra_exp.runs.history import TRAINING_RULE
from spectra_exp.runs.pairing import pairing_columns
from spectra_exp.runs.provenance import made_with, plugin_version
from spectra_exp.runs.stored import StoredRun, stored_runs

if TYPE_CHECKING:
    import pandas as pd

METHOD_COLUMNS = ("label", "router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")
# What stands beside a comparison, and what tells whether one may be made, is the same for the seeds of a cell.
SIZE_COLUMNS = (
    "causal",
    "causal_training",
    "active_parameters",
    "total_parameters",
    "flops_per_token",
    "size_as_measured",
)
RUN_COLUMNS = (
    "run_id",
    "cell_id",
    *METHOD_COLUMNS,
    "seed",
    "studies",
    "command",
    "max_steps",
    "stale",
    *SIZE_COLUMNS,
    "data_fingerprint",
    "evaluation_fingerprint",
    "initial_weights",
    "weights_by_name",
    "batches",
)
VALUE_COLUMNS = ("run_id", "metric", "value", "floor")
# The kind of floor that is the same for every routing of as many tokens.
UNIFORM = "uniform"
# Of the summary's timings, the figures that are metrics.
TIMINGS = ("step_time_ms", "tokens_per_second", "peak_memory_mb")

# What the names of a run's scores on downstream tasks begin with, their mean's too.
DOWNSTREAM = "downstream_"
INFERENCE = "_inference_"
"""With a rule's name after it, suffix of a metric measured on the same weights under another rule of inference."""


@dataclass(frozen=True)
class Collected:
    """What lies under outputs/runs.

    `runs`: a row for each completed run, `RUN_COLUMNS`. `values`: a row for each run and metric over all layers,
    `VALUE_COLUMNS`; `floor` is the chance floor or NaN. `skipped`: why each other entry was left out, by name.
    `odd`: what is wrong with a run that is in the tables all the same. `damaged`: files that cannot be read of such
    runs, by path. `stored`: every folder as it was read, by name. `whole`: what this is one study of, else None.
    """

    runs_folder: Path
    runs: pd.DataFrame
    values: pd.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    stored: dict[str, StoredRun] = field(default_factory=dict)
    skipped_launches: list[str] = field(default_factory=list)
    whole: Collected | None = None

    @property
    def everything(self) -> Collected:
        """The same with the runs of all studies."""
        return self.whole or self

    @cached_property
    def figures(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(value, floor) by run id and metric."""
        rows = self.values.itertuples(index=False)
        return {(run_id, metric): (value, floor) for run_id, metric, value, floor in rows}

    @cached_property
    def by_run(self) -> dict[str, dict[str, Any]]:
        """Each run's row of `runs`, by run id."""
        return {row["run_id"]: row for row in self.runs.to_dict("records")}

    @cached_property
    def studies(self) -> set[str]:
        """The studies that completed runs name."""
        return {name for names in self.runs["studies"] for name in names}

    def run(self, run_id: str) -> StoredRun:
        """The folder of a run, with what was read of it already."""
        return self.stored.get(run_id) or StoredRun(self.runs_folder / run_id)

    def run_of(self, path: Path) -> str:
        """The name of the run that a file is of."""
        return next((name for name, run in self.stored.items() if path.is_relative_to(run.path)), path.parent.name)

    def of_study(self, study: str, shared: AbstractSet[str] = frozenset()) -> Collected:
        """The same with the runs that name one study alone, and those `shared` with it that were made for another.

        Raises SpectraError, with the known ones, when it has none.
        """
        runs = self.runs[self.runs["studies"].map(lambda names: study in names) | self.runs["run_id"].isin(shared)]
        if runs.empty:
            known = ", ".join(sorted(self.studies)) or "none"
            raise SpectraError(f"study: no completed run of study '{study}'; studies with one: {known}")
        values = self.values[self.values["run_id"].isin(runs["run_id"])]
        return replace(self, runs=runs, values=values, skipped_launches=[], whole=self)


def collect(runs_folder: Path, stored: dict[str, StoredRun] | None = None) -> Collected:
    """All completed runs under `runs_folder`, or of those `stored`, by name; empty tables when there is none."""
    import pandas as pd

    if stored is None:
        stored = {run.run_id: run for run in stored_runs(runs_folder)}
    skipped = {name: run.refusal for name, run in stored.items() if run.refusal is not None}
    # Plain copies, some of whose figures are taken out.
    sound = [dict(run.required_summary) for run in stored.values() if run.refusal is None]
    summaries, twice = _first_of_each_seed(sound)
    skipped |= twice
    odd = {s["run_id"]: problem for s in summaries if (problem := _unusable(s, stored[s["run_id"]].sizes))}
    for found in (_leave_other_tasks_out(summaries), _without_plugin(summaries)):
        for run_id, problem in found.items():
            odd[run_id] = "; ".join(filter(None, [odd.get(run_id), problem]))
    damaged = {path: problem for s in summaries for path, problem in stored[s["run_id"]].examine().items()}
    # Objects: whole numbers stay whole beside missing ones.
    rows = [_run_row(s, stored[s["run_id"]].is_stale()) for s in summaries]
    runs = pd.DataFrame(rows, columns=RUN_COLUMNS, dtype=object)
    figures = [row for s in summaries for row in _value_rows(s, stored[s["run_id"]].sizes)]
    values = pd.DataFrame(figures, columns=VALUE_COLUMNS).astype({"value": "float64", "floor": "float64"})
    return Collected(runs_folder, runs, values, skipped, odd, damaged, stored)


def _first_of_each_seed(summaries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The summaries without those of a cell, seed and data that another run has already, and why they were left out."""
    first: dict[tuple[Any, ...], str] = {}
    kept, twice = [], {}
    for summary in summaries:
        prints = [summary["fingerprints"].get(name) for name in ("data", "evaluation")]
        key = (summary["cell_id"], summary["seed"], summary.get("max_steps"), *prints)
        if key in first:
            twice[summary["run_id"]] = f"the same configuration and seed as {first[key]}; it counts once"
        else:
            first[key] = summary["run_id"]
            kept.append(summary)
    return kept, twice


def _leave_other_tasks_out(summaries: list[dict[str, Any]]) -> dict[str, str]:
    """Take out the downstream scores that are not over the tasks and settings of most runs; which runs, and why."""
    prints = {s["run_id"]: s["fingerprints"].get("downstream") for s in summaries if SCORE in s["metrics"]}
    if not prints:
        return {}
    counts = Counter(prints.values())
    usual = min(counts, key=lambda found: (-counts[found], str(found)))
    others = {run_id for run_id, found in prints.items() if found != usual}
    for summary in summaries:
        if summary["run_id"] in others:
            summary["metrics"] = {name: v for name, v in summary["metrics"].items() if not name.startswith(DOWNSTREAM)}
    return dict.fromkeys(others, "its downstream scores are over other tasks or settings than most, left empty")


def _without_plugin(summaries: list[dict[str, Any]]) -> dict[str, str]:
    """Which runs had plug-ins that are not imported here, and how to have them."""
    found = {}
    for summary in summaries:
        names = [name for name in made_with(summary["fingerprints"].get("code")) if plugin_version(name) is None]
        if names:
            found[summary["run_id"]] = f"its plug-in is not imported here; give plugins=[{','.join(names)}]"
    return found


def _run_row(summary: dict[str, Any], is_stale: bool) -> dict[str, Any]:
    prints = summary["fingerprints"]
    return {
        **{column: summary.get(column) for column in RUN_COLUMNS},
        "studies": tuple(summary.get("studies") or ()),
        "stale": is_stale,
        "active_parameters": summary["parameters"].get("active"),
        "total_parameters": summary["parameters"].get("total"),
        "initial_weights": prints.get("initial_weights"),
        **pairing_columns(summary),
    }


def base_name(name: str) -> str:
    """A figure's name without the rule of routing that it was measured under."""
    return name.removesuffix(TRAINING_RULE).partition(INFERENCE)[0]


def _value_rows(summary: dict[str, Any], sizes: Sizes) -> list[tuple[str, str, float | None, float | None]]:
    floors = {name: floor for name, floor in summary["floors"].items() if _usable(name, floor, sizes)}
    return [
        (summary["run_id"], name + suffix, value if _usable(name, value, sizes) else None, _floor(name, suffix, floors))
        for suffix, metrics in _rules(summary).items()
        for name, value in sorted(metrics.items())
        if not _is_a_column(name, metrics)
    ]


def _floor(name: str, suffix: str, floors: dict[str, Any]) -> float | None:
    """The chance floor of a figure; one that depends on the run's own routing is not that of another rule."""
    if suffix and (name not in METRICS or METRICS[name].floor != UNIFORM):
        return None
    return floors.get(name)


def _rules(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures under each rule of routing, by the suffix of their names."""
    timings = {k: v for k, v in (summary.get("timings") or {}).items() if k in TIMINGS}
    others = summary.get("metrics_by_inference") or {}
    return {
        "": timings | summary["metrics"],
        TRAINING_RULE: summary["metrics_training_rule"],
        **{f"{INFERENCE}{rule}": metrics for rule, metrics in others.items()},
    }


def _usable(name: str, value: float | None, sizes: Sizes) -> bool:
    """Whether the figure of that name can have the value in a run of these sizes."""
    return value is not None and figure(name).range.holds(value, sizes)


def _unusable(summary: dict[str, Any], sizes: Sizes) -> str | None:
    """Which figures of the summary are not finite or out of their range, in words, or None."""
    groups = [*_rules(summary).items(), ("'s floor", summary["floors"])]
    wrong = [
        (name + suffix, value, figure(name).range)
        for suffix, metrics in groups
        for name, value in sorted(metrics.items())
        if value is not None and not _usable(name, value, sizes)
    ]
    infinite = [name for name, value, _ in wrong if not math.isfinite(value)]
    outside = [f"{name} {value:g} (from {r.text})" for name, value, r in wrong if math.isfinite(value)]
    words = [("not finite", infinite), ("out of range", outside)]
    return "; ".join(f"{what}, left empty: {', '.join(names)}" for what, names in words if names) or None


def _is_a_column(name: str, metrics: dict[str, Any]) -> bool:
    """Whether the tables already have a column of that name: the run's own (`causal`), or a metric's floor."""
    return name in RUN_COLUMNS or (name.endswith("_floor") and name.removesuffix("_floor") in metrics)
