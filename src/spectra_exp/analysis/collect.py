"""Every run's summary as tables: one row a run, and one long table of all its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_exp.errors import SpectraError
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.summary import read_summary

if TYPE_CHECKING:
    import pandas as pd

METHOD_COLUMNS = ("label", "router", "osr", "selection", "temperature", "baseline", "ablation", "model", "data")
RUN_COLUMNS = (
    "run_id", "cell_id", *METHOD_COLUMNS, "seed", "studies", "max_steps", "stale", "causal", "causal_training",
    "active_parameters", "total_parameters", "flops_per_token",
    "data_fingerprint", "evaluation_fingerprint", "initial_weights", "weights_by_name", "batches",
)  # fmt: skip
VALUE_COLUMNS = ("run_id", "metric", "value", "floor")

TRAINING_RULE = "_training_rule"
"""Suffix of a metric measured under the training rule, where that differs from the inference rule."""


@dataclass(frozen=True)
class Collected:
    """What lies under outputs/runs.

    `runs`: a row for each completed run, `RUN_COLUMNS`. `values`: a row for each run and metric over all layers,
    `VALUE_COLUMNS`; `floor` is the chance floor or NaN. `skipped`: why each other entry was left out, by name.
    """

    runs: pd.DataFrame
    values: pd.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)

    def of_study(self, study: str) -> Collected:
        """The same with the runs of one study alone; raises SpectraError, with the known ones, when it has none."""
        chosen = self.runs["studies"].map(lambda names: study in names)
        if not chosen.any():
            known = sorted({name for names in self.runs["studies"] for name in names})
            raise SpectraError(
                f"--study: no completed run of study '{study}'; studies with one: {', '.join(known) or 'none'}"
            )
        runs = self.runs[chosen]
        return Collected(runs, self.values[self.values["run_id"].isin(runs["run_id"])], self.skipped)


def collect(runs_folder: Path) -> Collected:
    """All completed runs under `runs_folder`, in the order of their names; empty tables when there is none."""
    import pandas as pd

    summaries, skipped = _read_all(runs_folder)
    # Objects: whole numbers stay whole beside missing ones.
    runs = pd.DataFrame([_run_row(s) for s in summaries], columns=RUN_COLUMNS, dtype=object)
    values = pd.DataFrame([row for s in summaries for row in _value_rows(s)], columns=VALUE_COLUMNS)
    return Collected(runs, values.astype({"value": "float64", "floor": "float64"}), skipped)


def _read_all(runs_folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    summaries, skipped = [], {}
    for path in sorted(runs_folder.iterdir()) if runs_folder.is_dir() else []:
        summary = _read_one(path)
        if isinstance(summary, str):
            skipped[path.name] = summary
        else:
            summaries.append(summary)
    return summaries, skipped


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
    both_rules = (("", summary["metrics"]), (TRAINING_RULE, summary["metrics_training_rule"]))
    return [
        (summary["run_id"], name + suffix, value, floors.get(name))
        for suffix, metrics in both_rules
        for name, value in sorted(metrics.items())
        if not _is_a_column(name, metrics)
    ]


def _is_a_column(name: str, metrics: dict[str, Any]) -> bool:
    """Whether the tables already have a column of that name: the run's own (`causal`), or a metric's floor."""
    return name in RUN_COLUMNS or (name.endswith("_floor") and name.removesuffix("_floor") in metrics)
