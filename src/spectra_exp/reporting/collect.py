"""Every run's summary as tables: one row a run, and one long table of all its metrics."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.downstream.tasks import SCORE
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.measure import METRICS
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.summary import read_summary

if TYPE_CHECKING:
    import pandas as pd

METHOD_COLUMNS = ("label", "router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")
RUN_COLUMNS = (
    "run_id", "cell_id", *METHOD_COLUMNS, "seed", "studies", "command", "max_steps", "stale",
    "causal", "causal_training",
    "active_parameters", "total_parameters", "flops_per_token",
    "data_fingerprint", "evaluation_fingerprint", "initial_weights", "weights_by_name", "batches",
)  # fmt: skip
VALUE_COLUMNS = ("run_id", "metric", "value", "floor")
# The kind of floor that is the same for every routing of as many tokens.
UNIFORM = "uniform"
# Of the summary's timings, the figures that are metrics.
TIMINGS = ("step_time_ms", "tokens_per_second", "peak_memory_mb")

# What the names of a run's scores on downstream tasks begin with, their mean's too.
DOWNSTREAM = "downstream_"
TRAINING_RULE = "_training_rule"
"""Suffix of a metric measured under the training rule, where that differs from the inference rule."""
INFERENCE = "_inference_"
"""With a rule's name after it, suffix of a metric measured on the same weights under another rule of inference."""


@dataclass(frozen=True)
class Collected:
    """What lies under outputs/runs.

    `runs`: a row for each completed run, `RUN_COLUMNS`. `values`: a row for each run and metric over all layers,
    `VALUE_COLUMNS`; `floor` is the chance floor or NaN. `skipped`: why each other entry was left out, by name.
    `odd`: what is wrong with a run that is in the tables all the same.
    """

    runs_folder: Path
    runs: pd.DataFrame
    values: pd.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    skipped_launches: list[str] = field(default_factory=list)

    @cached_property
    def figures(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(value, floor) by run id and metric."""
        rows = self.values.itertuples(index=False)
        return {(run_id, metric): (value, floor) for run_id, metric, value, floor in rows}

    @cached_property
    def by_run(self) -> dict[str, dict[str, Any]]:
        """Each run's row of `runs`, by run id."""
        return {row["run_id"]: row for row in self.runs.to_dict("records")}

    def of_study(self, study: str) -> Collected:
        """The same with the runs of one study alone; raises SpectraError, with the known ones, when it has none."""
        chosen = self.runs["studies"].map(lambda names: study in names)
        if not chosen.any():
            known = sorted({name for names in self.runs["studies"] for name in names})
            raise SpectraError(
                f"--study: no completed run of study '{study}'; studies with one: {', '.join(known) or 'none'}"
            )
        runs = self.runs[chosen]
        values = self.values[self.values["run_id"].isin(runs["run_id"])]
        return Collected(self.runs_folder, runs, values, self.skipped, self.odd)


def collect(runs_folder: Path) -> Collected:
    """All completed runs under `runs_folder`, in the order of their names; empty tables when there is none."""
    import pandas as pd

    summaries, skipped = _read_all(runs_folder)
    summaries, twice = _first_of_each_seed(summaries)
    skipped |= twice
    odd = {s["run_id"]: problem for s in summaries if (problem := _not_finite(s))} | _leave_other_tasks_out(summaries)
    # Objects: whole numbers stay whole beside missing ones.
    runs = pd.DataFrame([_run_row(s) for s in summaries], columns=RUN_COLUMNS, dtype=object)
    values = pd.DataFrame([row for s in summaries for row in _value_rows(s)], columns=VALUE_COLUMNS)
    return Collected(runs_folder, runs, values.astype({"value": "float64", "floor": "float64"}), skipped, odd)


def _read_all(runs_folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    summaries, skipped = [], {}
    for path in sorted(runs_folder.iterdir()) if runs_folder.is_dir() else []:
        summary = _read_one(path)
        if isinstance(summary, str):
            skipped[path.name] = summary
        else:
            summaries.append(summary)
    return summaries, skipped


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


def _read_one(folder: Path) -> dict[str, Any] | str:
    """The summary of a completed run, or why `folder` gives none."""
    if not folder.is_dir():
        return "not a run's folder"
    try:
        summary = read_summary(folder / "summary.json")
    except SpectraError as error:
        return str(error).removeprefix(f"{folder / 'summary.json'}: ")
    if summary["status"] != "completed":
        return f"status is {summary['status']}"
    if summary["run_id"] != folder.name:
        return f"its summary is that of {summary['run_id']}; a copy?"
    return summary


def _run_row(summary: dict[str, Any]) -> dict[str, Any]:
    prints = summary["fingerprints"]
    return {
        **{column: summary.get(column) for column in RUN_COLUMNS},
        "studies": tuple(summary.get("studies") or ()),
        "stale": prints.get("code") != code_version(),
        "active_parameters": summary["parameters"].get("active"),
        "total_parameters": summary["parameters"].get("total"),
        "data_fingerprint": prints.get("data"),
        "evaluation_fingerprint": prints.get("evaluation"),
        "initial_weights": prints.get("initial_weights"),
        "weights_by_name": summary.get("initial_weights") or {},
        "batches": prints.get("batches"),
    }


def _value_rows(summary: dict[str, Any]) -> list[tuple[str, str, float | None, float | None]]:
    floors = summary["floors"]
    return [
        (summary["run_id"], name + suffix, value if _is_finite(value) else None, _floor(name, suffix, floors))
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


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _not_finite(summary: dict[str, Any]) -> str | None:
    """Which figures of the summary are NaN or infinite, in words, or None."""
    found = [
        name + suffix
        for suffix, metrics in _rules(summary).items()
        for name, value in sorted(metrics.items())
        if value is not None and not _is_finite(value)
    ]
    return f"not finite, left empty: {', '.join(found)}" if found else None


def _is_a_column(name: str, metrics: dict[str, Any]) -> bool:
    """Whether the tables already have a column of that name: the run's own (`causal`), or a metric's floor."""
    return name in RUN_COLUMNS or (name.endswith("_floor") and name.removesuffix("_floor") in metrics)
