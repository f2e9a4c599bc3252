"""The page of the temperature study at its reference scale, from its runs: `make temperature-reference` prints it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from spectra_exp.runs.stored import StoredRun, stored_runs

COLUMNS = (
    "temperature",
    "steps",
    "time (s)",
    "tokens/s",
    "memory (MiB)",
    "train loss",
    "best val loss (step)",
    "last val loss",
    "routing entropy",
    "Gini of the load",
)


def row(run: StoredRun) -> list[str]:
    """A finished run's line."""
    summary: Any = run.summary
    metrics, timings = summary["metrics"], summary["timings"]
    history = run.history
    losses = history[
        (history["split"] == "validation") & (history["metric"] == "val_loss") & (history["layer"] == "all")
    ]
    best = losses.loc[losses["value"].idxmin()]
    return [
        summary["temperature"],
        str(summary["steps"]),
        f"{timings['wall_s']:.0f}",
        f"{timings['tokens_per_second']:,.0f}",
        f"{timings['peak_memory_mb']:,.0f}",
        f"{metrics['train_loss']:.3f}",
        f"{best['value']:.3f} ({best['step']})",
        f"{metrics['val_loss']:.3f}",
        f"{metrics['routing_entropy']:.3f}",
        f"{metrics['load_gini']:.3f}",
    ]


def page(outputs: Path) -> str:
    """The Markdown of the runs under `outputs`, in the order of their folders, with the verdicts of its tables."""
    runs = stored_runs(outputs / "runs")
    finished = [run for run in runs if run.summary is not None and run.summary["status"] == "completed"]
    seeds = sorted({run.summary["seed"] for run in finished})
    lines = [
        "# Router temperature at the reference scale",
        "",
        f"{len(finished)} finished runs of `model=exp10`, seeds: {', '.join(map(str, seeds)) or 'none'}. With one seed",
        "no difference between two rows is tested. The text is seen several times over, so the best and the last",
        "validation loss are both given.",
        "",
    ]
    lines += ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(row, finished))]
    verdicts = outputs / "tables" / "hypotheses.md"
    if verdicts.exists():
        lines += ["", verdicts.read_text(encoding="utf-8").rstrip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
