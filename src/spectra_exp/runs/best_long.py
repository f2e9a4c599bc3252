"""`temperature=best_long`: the best constant temperature of the finished runs, for twice their steps."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.config.tree import train_words
from spectra_exp.config.typed import as_typed, parse_overrides
from spectra_exp.foundations.errors import ConfigError, NotYet
from spectra_exp.routing.temperature import BEST_LONG, LENGTHENING
from spectra_exp.runs.folder import RunFolder

# Lowest first: of equal losses the first wins.
CONSTANTS = ("t0_5", "t0_7", "t1_0", "t1_5", "t2_0", "t3_0", "t5_0", "t10_0")


def resolve_best_long(experiment: Experiment, run_id: Callable[[Experiment], str]) -> Experiment:
    """The experiment with the winning temperature and twice the steps; any other choice as it is.

    The candidates are the runs of the same overrides and seed at each of CONSTANTS, found by `run_id` of their
    experiments. The lowest validation loss at the end wins; a diverged run counts as the worst. NotYet, with
    the command that runs them, while any has not finished. *Source:* docs/method.md 4.
    """
    if experiment.choices["temperature"] != BEST_LONG:
        return experiment
    rest = [as_typed(o) for o in parse_overrides(experiment.overrides) if not _is_of_temperature(o.key_or_group)]
    candidates = {name: load_experiment([*rest, f"temperature={name}"]) for name in CONSTANTS}
    folders = {name: RunFolder(Path(x.outputs) / "runs", run_id(x)) for name, x in candidates.items()}
    losses = {name: loss for name, folder in folders.items() if (loss := _final_loss(folder)) is not None}
    missing = [name for name in folders if name not in losses]
    if missing:
        # How the study is launched is not how these are.
        own = [word for word in rest if not word.startswith("launch.")]
        command = shlex.join([*train_words(), "-m", *own, f"temperature={','.join(missing)}"])
        raise NotYet(
            "temperature",
            f"best_long compares finished runs of seed {experiment.seed}, and these have not: {', '.join(missing)}",
            f"run {command}",
            [folders[name].run_id for name in missing],
        )
    best = min(CONSTANTS, key=losses.__getitem__)
    if losses[best] == math.inf:
        raise ConfigError("temperature", "best_long has nothing to go on with: every constant diverged")
    longer = replace(experiment.trainer, max_steps=LENGTHENING * experiment.trainer.max_steps)
    return replace(experiment, temperature=candidates[best].temperature, trainer=longer)


def _is_of_temperature(key: str) -> bool:
    return key.partition(".")[0] == "temperature"


def _final_loss(folder: RunFolder) -> float | None:
    """Validation loss in nats of a finished run, infinite for one that diverged; None while it has not finished."""
    match folder.status():
        case "completed":
            loss: float | None = folder.read_summary()["metrics"].get("val_loss")
            return math.inf if loss is None else loss
        case "diverged":
            return math.inf
    return None
