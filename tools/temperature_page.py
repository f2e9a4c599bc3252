"""The page of the temperature study at its reference scale, from its runs: `make temperature-reference` prints it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from spectra_exp.reporting.hypotheses.catalogue import HYPOTHESES
from spectra_exp.reporting.hypotheses.temperature import BEST_FROM, BEST_TO, EARLY, RANKING, degrees_of
from spectra_exp.runs.stored import StoredRun, stored_runs
from spectra_exp.studies.definition import load_study

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


def of_validation(run: StoredRun, metric: str) -> pd.DataFrame:
    """The rows of a metric's means over layers on the validation text."""
    history = run.history
    return history[(history["split"] == "validation") & (history["metric"] == metric) & (history["layer"] == "all")]


def row(run: StoredRun) -> list[str]:
    """A finished run's line."""
    summary: Any = run.summary
    metrics, timings = summary["metrics"], summary["timings"]
    losses = of_validation(run, "val_loss")
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


def place(run: StoredRun) -> str:
    """What a run trained on and in steps of what size."""
    devices = json.loads(run.text(run.folder.environment))["devices"]
    batch, length = run.config["trainer"]["batch_size"], run.config["data"]["sequence_length"]
    return f"steps of {batch} x {length} tokens on {devices['names'][0] if devices['names'] else 'a CPU'}"


def readings(runs: dict[str, StoredRun]) -> list[str]:
    """What one seed says on T1 to T4, by the temperature of each run: figures without a test."""

    def final(metric: str, names: Iterable[str]) -> dict[str, float]:
        return {name: runs[name].summary["metrics"][metric] for name in names if name in runs}

    def fall(name: str) -> float:
        entropy = of_validation(runs[name], "routing_entropy")
        early = entropy.iloc[(entropy["fraction"] - EARLY).abs().argmin()]
        return early["value"] - entropy["value"].iloc[-1]

    def shown(values: dict[str, float]) -> str:
        return ", ".join(f"{degrees.get(name, name)}: {value:.3f}" for name, value in values.items())

    degrees = {name: f"{value:g}" for name, value in sorted(degrees_of().items(), key=lambda item: item[1])}
    losses, schedules = final("val_loss", degrees), final("val_loss", RANKING)
    if len(losses) < len(degrees) or len(schedules) < len(RANKING):
        return ["Not all of its temperatures are finished: nothing is read off."]
    best, cosine = min(losses, key=losses.__getitem__), schedules["cosine"]
    below = sum(cosine < loss for loss in losses.values())
    inside = "inside" if BEST_FROM <= degrees_of()[best] <= BEST_TO else "outside"
    said = {
        "T1": f"last validation loss is lowest at {degrees[best]}, {inside} {BEST_FROM:g} to {BEST_TO:g} "
        f"({shown(losses)})",
        "T2": f"cosine's {cosine:.3f} is below {below} of {len(losses)} constants; in the order that is claimed: "
        + shown(schedules),
        "T3": f"Gini of the load: {shown(final('load_gini', degrees))}",
        "T4": "fall of routing entropy from 10 % of training to its end, in nats: "
        + shown({name: fall(name) for name in degrees}),
    }
    claims = {hypothesis.name: hypothesis.claim for hypothesis in HYPOTHESES}
    return [f"- {name}, {claims[name][0].lower()}{claims[name][1:]}: {text}." for name, text in said.items()]


def page(outputs: Path) -> str:
    """The Markdown of the runs under `outputs`, in the order of the study, with the verdicts of its tables."""
    (block,) = load_study("temperature").blocks
    order = list(block.grid["temperature"])
    runs = stored_runs(outputs / "runs")
    finished = [run for run in runs if run.summary is not None and run.summary["status"] == "completed"]
    finished.sort(key=lambda run: (order.index(run.summary["temperature"]), run.summary["seed"]))
    seeds = sorted({run.summary["seed"] for run in finished})
    places = ", ".join(sorted(set(map(place, finished)))) or "no steps"
    lines = [
        "# Router temperature at the reference scale",
        "",
        f"{len(finished)} finished runs of `model=exp10`, {places}.",
        f"Seeds: {', '.join(map(str, seeds)) or 'none'}. With one seed",
        "no difference between two rows is tested. The text is seen several times over, so the best and the last",
        "validation loss are both given.",
        "",
    ]
    lines += ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(row, finished))]
    if len(seeds) == 1:
        lines += ["", "## What one seed says", ""]
        lines += readings({run.summary["temperature"]: run for run in finished})
    verdicts = outputs / "tables" / "hypotheses.md"
    if verdicts.exists() and len(seeds) > 1:
        lines += ["", verdicts.read_text(encoding="utf-8").rstrip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
