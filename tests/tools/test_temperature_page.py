"""The page of the temperature study at its reference scale."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
spec = util.spec_from_file_location("temperature_page", ROOT / "tools" / "temperature_page.py")
temperature_page = util.module_from_spec(spec)
spec.loader.exec_module(temperature_page)

SUMMARY = {
    "temperature": "t1_5",
    "steps": 500,
    "timings": {"wall_s": 61.4, "tokens_per_second": 812345.6, "peak_memory_mb": 20000.0},
    "metrics": {"train_loss": 0.5, "val_loss": 4.5, "routing_entropy": 1.25, "load_gini": 0.125},
}
HISTORY = pd.DataFrame(
    [
        (0, "validation", "all", "val_loss", 9.0),
        (100, "validation", "all", "val_loss", 3.25),
        (500, "validation", "all", "val_loss", 4.5),
        (100, "train", "all", "train_loss", 1.0),
        (100, "validation", "all", "load_gini", 0.01),
    ],
    columns=["step", "split", "layer", "metric", "value"],
)


def test_a_row_has_the_best_loss_and_the_last():
    cells = temperature_page.row(SimpleNamespace(summary=SUMMARY, history=HISTORY))
    assert dict(zip(temperature_page.COLUMNS, cells, strict=True)) == {
        "temperature": "t1_5",
        "steps": "500",
        "time (s)": "61",
        "tokens/s": "812,346",
        "memory (MiB)": "20,000",
        "train loss": "0.500",
        "best val loss (step)": "3.250 (100)",
        "last val loss": "4.500",
        "routing entropy": "1.250",
        "Gini of the load": "0.125",
    }


def test_the_verdicts_of_the_tables_are_added(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "hypotheses.md").write_text("# Hypotheses\n")
    page = temperature_page.page(tmp_path)
    assert "0 finished runs" in page and page.endswith("# Hypotheses\n")
