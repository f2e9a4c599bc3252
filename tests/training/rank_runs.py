"""A run short enough for several processes, and what two runs' folders differ in."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pandas as pd
from small_run import SMALL

from spectra_exp.config.compose import prepare_environment

CHANGED = ("trainer.", "router.")
STEPS = ["trainer.max_steps=6", "trainer.checkpoint_every=3", "trainer.log_every=3", "trainer.batch_size=4"]
SHORT = [*(o for o in SMALL if not o.startswith(CHANGED)), *STEPS]
# Muon needs matrices whole.
SHARDABLE = [*SHORT, "optim=adamw"]
KEY = ["step", "split", "layer", "metric"]


def run_of(outputs: Path) -> Path:
    (run,) = (outputs / "runs").iterdir()
    return run


def summary_of(outputs: Path) -> dict:
    return json.loads((run_of(outputs) / "summary.json").read_text())


def differences(one: Path, other: Path, lacking: Collection[str] = ()) -> pd.Series:
    """Largest difference of each metric between two runs' histories, which have the same rows but for `lacking`."""
    histories = [pd.read_parquet(run_of(outputs) / "history.parquet") for outputs in (one, other)]
    histories[0] = histories[0][~histories[0]["metric"].isin(lacking)]
    both = histories[0].merge(histories[1], on=KEY, how="outer", suffixes=("", "_other"), indicator=True)
    assert (both["_merge"] == "both").all()
    found = (both["value"] - both["value_other"]).abs().groupby(both["metric"]).max()
    first, second = (pd.read_parquet(run_of(outputs) / "documents.parquet") for outputs in (one, other))
    assert first.drop(columns=["loss", "correct"]).equals(second.drop(columns=["loss", "correct"]))
    found["loss of documents"] = ((first["loss"] - second["loss"]).abs() / first["tokens"]).max()
    return found


def places(folder: Path, cache: Path, names: Collection[str]) -> Path:
    """`folder` with outputs for each of several runs, which share a cache."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "cache").symlink_to(cache)
    prepare_environment()
    return folder
