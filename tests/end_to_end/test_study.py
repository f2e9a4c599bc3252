"""Two arms by three seeds through the command line's own parts, to the table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_run import DATA, MODEL

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.config.typed import expand_jobs
from spectra_exp.reporting.make_tables import main as make_tables
from spectra_exp.runs.plan import plan
from spectra_exp.training.execute import execute

SMALL = [
    *MODEL,
    *DATA,
    "trainer.batch_size=4",
    "trainer.max_steps=10",
    "logger.progress=false",
    "study=small",
]


@pytest.mark.slow
def test_two_arms_three_seeds_one_table(tmp_path: Path) -> None:
    prepare_environment()
    for job in expand_jobs([*SMALL, f"outputs={tmp_path}", "ablation=none,no_gru", "seed=0,1,2"], multirun=True):
        assert execute(plan(load_experiment(job)), "") == "completed"
    assert make_tables([f"outputs={tmp_path}", "study=small"]) == 0
    folder = tmp_path / "tables" / "small"
    table = pd.read_csv(folder / "routing_metrics.csv")
    assert sorted(table["ablation"].fillna("none")) == ["no_gru", "none"]
    assert table["n"].tolist() == [3, 3] and set(table["pairing"]) == {"ok"}
    figures = pd.read_csv(folder / "routing_metrics_long.csv").query("metric == 'val_loss' and rule == 'inference'")
    assert figures["mean"].nunique() == 2 and (figures["low"] < figures["mean"]).all()
