"""Summaries of runs that never ran, for the tests of the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from spectra_exp.foundations.files import write_json
from spectra_exp.runs.provenance import code_version


def summary(cell: str, seed: int, metrics: dict[str, float | None], **changes: Any) -> dict[str, Any]:
    """A completed run's summary; `changes` replace keys, those of `fingerprints` and `parameters` one by one."""
    # A completed run made all the steps that it was to make.
    steps = changes.get("max_steps", 300)
    prints = {
        "data": "d" * 16,
        "evaluation": "e" * 16,
        "initial_weights": f"w{cell}{seed}",
        "batches": f"b{seed}",
        "code": code_version(),
    } | changes.pop("fingerprints", {})
    return {
        "schema": 1,
        "run_id": f"{cell}-s{seed}-00000000",
        "cell_id": f"{cell}-11111111",
        "name": cell,
        "label": cell.title(),
        "studies": ["demo"],
        "status": "completed",
        "error": None,
        "seed": seed,
        "router": cell,
        "osr": "none",
        "selection": "topk",
        "temperature": "t1_0",
        "baseline": "none",
        "ablation": "none",
        "model": "tiny",
        "data": "embedded",
        "command": "python train.py",
        "steps": steps,
        "max_steps": steps,
        "metrics": metrics,
        "metrics_by_layer": {},
        "metrics_training_rule": {},
        "floors": {"load_cv": 0.01},
        "parameters": {"total": 2_500_000, "active": 1_200_000},
        "flops_per_token": 1.5e6,
        "causal": True,
        "causal_training": False,
        "timings": {},
        "fingerprints": prints,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
    } | changes


ENDS = {"mean": "_mean", "low": "_ci_low", "high": "_ci_high", "n": "_n", "floor": "_floor"}


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Both CSV files of a table in one: the narrow one's rows, and beside them each figure of the long one."""
    table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
    long = pd.read_csv(folder / f"{name}_long.csv", keep_default_na=False)
    figures: dict[tuple[str, str], dict[str, Any]] = {}
    for row in long.to_dict("records"):
        suffix = {"inference": "", "training": "_training_rule"}.get(row["rule"], f"_inference_{row['rule']}")
        columns = {row["metric"] + suffix + end: row[key] for key, end in ENDS.items()}
        figures.setdefault((row["section"], row["row"]), {}).update(columns)
    places = zip(table["section"], table["label"], strict=True)
    beside = pd.DataFrame([figures.get(place, {}) for place in places], dtype=object)
    counts = [column for column in beside if column.endswith("_n")]
    return pd.concat([table, beside.fillna(dict.fromkeys(counts, 0)).fillna("")], axis=1)


def write(outputs: Path, *summaries: dict[str, Any]) -> None:
    """Make the run folder of each summary."""
    for value in summaries:
        write_json(outputs / "runs" / value["run_id"] / "summary.json", value)
