"""Studies written once and then retold: the same runs with other figures, so that a hypothesis is true, or is not."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_studies import Figures, make_study

from spectra_exp.reporting.collect import RUN_COLUMNS, VALUE_COLUMNS, Collected
from spectra_exp.reporting.hypotheses import HYPOTHESES, Verdict, all_verdicts, catalogue
from spectra_exp.reporting.material import Material, gather

Run = dict[str, Any]
Told = Callable[[Run], "dict[str, Any] | None"]

# A draw of the noise in which no world without an effect is among the 5 % that look as if they had one.
DRAW = 1
# What a seed does to every method alike: far more than any effect, so that only pairs can tell.
LUCK = {0: 0.0, 1: 0.4, 2: -0.3, 3: 0.7, 4: -0.6}


@contextmanager
def study_of(folder: Path, study: str, *typed: str, figures: Figures = lambda job: {}) -> Iterator[Material]:
    """The study with a finished run for each of its jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRA_OUTPUTS", str(folder))
        make_study(folder, study, figures, typed)
        yield gather(folder)


def retold(world: Material, figures: Told, facts: Told = lambda run: {}) -> Material:
    """The same runs with other figures.

    figures: metric → value, (value, floor), or None for a metric that is not measured. facts: changes to the run's
    row, or None for a run that never finished.
    """
    table = dict(world.collected.figures)
    runs = []
    for run_id, run in world.collected.by_run.items():
        changes = facts(run)
        if changes is None:
            continue
        runs.append(run | changes)
        for metric, value in (figures(run) or {}).items():
            table[run_id, metric] = (
                value if isinstance(value, tuple) else (math.nan if value is None else value, math.nan)
            )
    known = {run["run_id"] for run in runs}
    values = [(run, metric, *pair) for (run, metric), pair in table.items() if run in known and pair[0] == pair[0]]
    told = Material(
        world.outputs,
        Collected(
            world.collected.runs_folder,
            pd.DataFrame(runs, columns=RUN_COLUMNS, dtype=object),
            pd.DataFrame(values, columns=VALUE_COLUMNS).astype({"value": "float64", "floor": "float64"}),
        ),
    )
    vars(told)["studies"] = world.studies  # read once: the files are the same
    return told


def jitter(run: Run, what: str, size: float) -> float:
    """Noise of a run in a metric, the same each time."""
    return float(np.random.default_rng(zlib.crc32(f"{DRAW} {run['run_id']} {what}".encode())).normal(0.0, size))


def is_spectra(run: Run) -> bool:
    """Whether the run is SPECTRA's, not a baseline's."""
    return run["router"] == "spectra" and run["baseline"] == "none"


def verdicts_on(name: str, material: Material) -> dict[str, Verdict]:
    """The verdicts on one hypothesis, by rule."""
    [wanted] = [h for h in HYPOTHESES if h.name == name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "HYPOTHESES", (wanted,))
        found = all_verdicts(material)
    assert len({v.rule for v in found}) == len(found) and all(v.name == name for v in found)
    return {v.rule: v for v in found}


def outcomes(name: str, material: Material) -> dict[str, str]:
    """The outcomes alone, by rule."""
    return {rule: v.verdict for rule, v in verdicts_on(name, material).items()}
