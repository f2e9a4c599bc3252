"""What the terminal shows at the end of a run."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

MAIN_METRICS = (
    "val_loss",
    "val_accuracy",
    "load_cv",
    "max_vio",
    "expert_overlap",
    "gram_orthogonality",
    "routing_entropy_norm",
    "routing_consistency",
    "sequential_overlap",
    "domain_mutual_information",
    "domain_purity",
)


def closing_table(summary: dict[str, Any]) -> Group:
    """The main metrics beside what chance gives, and causality; the folder follows on standard output."""
    table = Table(box=box.SIMPLE)
    for column in ("metric", "value", "by chance"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    floors = summary["floors"] | {"val_loss": summary["unigram_loss"]}
    for name in MAIN_METRICS:
        if name in summary["metrics"]:
            floor = f"{floors[name]:.4f}" if name in floors else ""
            note = " (unigram)" if name == "val_loss" else ""
            table.add_row(name, f"{summary['metrics'][name]:.4f}", floor + note)
    causal = "causal" if summary["causal"] else "NOT causal: its predictions depend on later tokens or other sequences"
    speed = summary["timings"].get("tokens_per_second", 0.0)
    lines = Text(f"{summary['label']}, seed {summary['seed']}: {causal}; {speed:,.0f} tokens/s")
    return Group(table, lines)
