"""The page of the temperature study at its reference scale, from its runs: `make temperature-reference` prints it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spectra_exp.archive.sources import read_sources
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.shell import DONE, exit_status
from spectra_exp.reporting.hypotheses.catalogue import HYPOTHESES
from spectra_exp.reporting.hypotheses.temperature import BEST_FROM, BEST_TO, EARLY, RANKING, degrees_of
from spectra_exp.runs.stored import StoredRun
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
    assert history is not None
    return history[(history["split"] == "validation") & (history["metric"] == metric) & (history["layer"] == "all")]


def summary_of(run: StoredRun) -> dict[str, Any]:
    """The summary of a run that has one."""
    assert run.summary is not None
    return run.summary


def row(run: StoredRun) -> list[str]:
    """A finished run's line."""
    summary = summary_of(run)
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
    assert run.config is not None
    trainer, length = run.config["trainer"], run.config["data"]["sequence_length"]
    sequences = trainer["batch_size"] * trainer["accumulation"]
    return f"steps of {sequences} x {length} tokens on {devices['names'][0] if devices['names'] else 'a CPU'}"


def readings(runs: dict[str, StoredRun]) -> list[str]:
    """What one seed says on T1 to T4, by the temperature of each run: figures without a test."""

    def final(metric: str, names: Iterable[str]) -> dict[str, float]:
        return {name: summary_of(runs[name])["metrics"][metric] for name in names if name in runs}

    def fall(name: str) -> float:
        entropy = of_validation(runs[name], "routing_entropy")
        early = entropy.iloc[(entropy["fraction"] - EARLY).abs().argmin()]
        return early["value"] - entropy["value"].iloc[-1]

    def shown(values: dict[str, float]) -> str:
        return ", ".join(f"{degrees.get(name, name)}: {value:.3f}" for name, value in values.items())

    degrees = {name: f"{value:g}" for name, value in sorted(degrees_of().items(), key=lambda item: item[1])}
    losses, schedules = final("val_loss", degrees), final("val_loss", RANKING)
    said = {}
    if len(losses) == len(degrees):
        best = min(losses, key=losses.__getitem__)
        inside = "inside" if BEST_FROM <= degrees_of()[best] <= BEST_TO else "outside"
        span = f"{BEST_FROM:g} to {BEST_TO:g}"
        lowest = {name: of_validation(runs[name], "val_loss")["value"].min() for name in degrees}
        earlier = degrees[min(lowest, key=lowest.__getitem__)]
        last = f"last validation loss is lowest at {degrees[best]}, {inside} {span} ({shown(losses)})"
        said["T1"] = f"{last}; best loss at {earlier}"
        said["T3"] = f"Gini of the load: {shown(final('load_gini', degrees))}"
        falls = {name: fall(name) for name in degrees}
        said["T4"] = f"fall of routing entropy from 10 % of training to its end, in nats: {shown(falls)}"
    if said and len(schedules) == len(RANKING):
        cosine = schedules["cosine"]
        below = sum(cosine < loss for loss in losses.values())
        said["T2"] = (
            f"cosine's {cosine:.3f} is below {below} of {len(losses)} constants; in the order that is claimed: "
            + shown(schedules)
        )
    claims = {hypothesis.name: hypothesis.claim for hypothesis in HYPOTHESES}
    return [
        f"- {name}, {claims[name][0].lower()}{claims[name][1:]}: {said.get(name, 'waits for runs')}."
        for name in ("T1", "T2", "T3", "T4")
    ]


def page(outputs: Path) -> str:
    """The Markdown of the runs of an archive or a folder of outputs, in the order of the study.

    With several seeds the verdicts of the folder's tables are added. Raises SpectraError where no run has finished.
    """
    (block,) = load_study("temperature").blocks
    order = list(block.grid["temperature"])
    runs = read_sources(outputs, (str(outputs),)).stored.values()
    finished = [run for run in runs if run.summary is not None and run.summary["status"] == "completed"]
    if not finished:
        raise SpectraError(f"{outputs}: no run has finished yet")
    finished.sort(key=lambda run: (order.index(summary_of(run)["temperature"]), summary_of(run)["seed"]))
    seeds = sorted({summary_of(run)["seed"] for run in finished})
    places = ", ".join(sorted(set(map(place, finished)))) or "no steps"
    lines = [
        "# Router temperature at the reference scale",
        "",
        f"{len(finished)} finished runs of `model=exp10`, {places}.",
        f"Seeds: {', '.join(map(str, seeds)) or 'none'}. With one seed",
        "no difference between two rows is tested. Where a text is seen several times over, the last validation loss",
        "may be far above the best one: both are given. Runs that share a GPU share its time.",
        "",
    ]
    missing = [name for name in order if name not in {summary_of(run)["temperature"] for run in finished}]
    if missing:
        lines += [f"Not finished: {', '.join(missing)}.", ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(row, finished))]
    if len(seeds) == 1:
        lines += ["", "## What one seed says", ""]
        lines += readings({summary_of(run)["temperature"]: run for run in finished})
    verdicts = outputs / "tables" / "hypotheses.md"
    if verdicts.exists() and len(seeds) > 1:
        lines += ["", verdicts.read_text(encoding="utf-8").rstrip()]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str]) -> int:
    """Print the page; the exit status."""
    if len(words) != 1:
        raise ConfigError(
            "temperature_page.py", f"{len(words)} words were given", "give an archive or a folder of outputs"
        )
    sys.stdout.write(page(Path(words[0])))
    return DONE


if __name__ == "__main__":
    raise SystemExit(exit_status(lambda: main(sys.argv[1:]), "stopped"))
