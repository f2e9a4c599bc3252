"""Noise floors of a claim: what two arms of one configuration differ by (`make aa`), beside the smallest claim."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from spectra_exp.config.resolved import resolved_config
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.collect import Collected
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.runs.pairing import GROUP_KEYS
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.intervals import ALPHA
from spectra_exp.statistics.power import Spread, spread_of
from spectra_exp.studies.definition import load_study

# The study of A/A pairs, and the key in which its paired arms differ.
STUDY, THREADS = "aa", "trainer.cpu_threads"


@dataclass(frozen=True)
class Noise:
    """Standard deviations, in the metric's unit, that are no method's doing.

    seeds: of one configuration's value over seeds; rounding: of the difference of one seed with another number of
    threads, whose sums round otherwise.
    """

    seeds: Spread
    rounding: Spread

    def unpaired(self, n: int) -> float | None:
        """Standard deviation of the difference of two arms of `n` other seeds each."""
        return None if self.seeds.sd is None else self.seeds.sd * math.sqrt(2 / n)


def noise_of(collected: Collected, group: tuple[str, ...], metric: str) -> Noise | None:
    """The noise of a metric by the A/A runs of this group (the values of `GROUP_KEYS`); None without two of them."""
    known = collected.everything
    cells: dict[str, dict[int, str]] = {}
    for run_id, run in known.by_run.items():
        if STUDY in run["studies"] and tuple(str(run[key]) for key in GROUP_KEYS) == group:
            value, _ = known.figures.get((run_id, metric), (math.nan, math.nan))
            if math.isfinite(value):
                cells.setdefault(run["cell_id"], {})[run["seed"]] = run_id
    arms: dict[str, dict[int, dict[int, float]]] = {}
    for runs in cells.values():
        # The runs of a cell have one configuration.
        if (config := known.run(next(iter(runs.values()))).config) is not None:
            settings = dict(resolved_config(config).values)
            threads = int(settings.pop(THREADS))
            by_seed = {seed: known.figures[run_id, metric][0] for seed, run_id in runs.items()}
            arms.setdefault(repr(sorted(settings.items())), {})[threads] = by_seed
    first = [by_threads[min(by_threads)] for by_threads in arms.values()]
    values = [[arm[seed] for seed in sorted(arm)] for arm in first]
    if not any(len(arm) > 1 for arm in values):
        return None
    rounding = [
        [other[seed] - own[seed] for seed in sorted(own.keys() & other.keys())]
        for own, by_threads in zip(first, arms.values(), strict=True)
        for other in by_threads.values()
        if other is not own
    ]
    scale = max(abs(value) for arm in values for value in arm)
    return Noise(spread_of(values, scale), spread_of(rounding, scale))


def claim_notes(section: Section, tested: Iterable[tuple[Row, str, str, Comparison, float | None]]) -> list[str]:
    """For each metric with a claim its smallest one, beside what no cause at all would give.

    tested: row, label, metric, test and corrected p of each comparison of a table.
    """
    smallest: dict[str, tuple[Row, str, int, float]] = {}
    for row, label, metric, test, corrected in tested:
        if test.difference is not None and corrected is not None and corrected < ALPHA:
            size = abs(test.difference)
            if metric not in smallest or size < smallest[metric][-1]:
                smallest[metric] = row, label, test.n or test.n_a, size
    known = [note for metric, claim in smallest.items() if (note := _note(section, metric, *claim)) is not None]
    return known or ([not_measured()] if smallest else [])


def not_measured() -> str:
    """The note of a table with a claim beside which no A/A pair was run."""
    again = load_study(STUDY).asked()
    return f"What two arms of one configuration differ by was not measured for these settings: {again}, with them."


def _note(section: Section, metric: str, row: Row, label: str, n: int, size: float) -> str | None:
    run = section.run(row, min(row.runs))
    noise = noise_of(section.collected, tuple(str(run[key]) for key in GROUP_KEYS), metric)
    if noise is None or noise.seeds.sd is None:
        return None
    told = [
        f"Smallest claim in {metric}: {number_text(size)} ({label})",
        f"two arms of one configuration, {n} other seeds each, differ by {number_text(noise.unpaired(n))}",
    ]
    if noise.rounding.sd is not None:
        paired = noise.rounding.sd / math.sqrt(n)
        told.append(f"the same {n} seeds on two threads by {number_text(paired)}")
    return f"{'; '.join(told)} (standard deviations, {load_study(STUDY).asked()})."
