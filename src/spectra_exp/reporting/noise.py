"""Noise floors of a claim: what two arms of one configuration differ by (`make aa`), beside the smallest claim."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from spectra_exp.config.resolved import resolved_config
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.collect import Collected
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.runs.pairing import GROUP_KEYS
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.intervals import ALPHA
from spectra_exp.statistics.power import Spread, spread_of

# The study of A/A pairs, and the key in which its paired arms differ.
STUDY, THREADS = "aa", "trainer.cpu_threads"
NOT_MEASURED = "What two arms of one configuration differ by was not measured for these settings: make aa, with them."


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
            values = {seed: known.figures[run_id, metric][0] for seed, run_id in runs.items()}
            arms.setdefault(repr(sorted(settings.items())), {})[threads] = values
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


@dataclass(frozen=True)
class Claim:
    """A difference that a table stars: whose, in what."""

    row: Row
    label: str
    metric: str
    test: Comparison


def claim_notes(section: Section, tested: Iterable[tuple[Row, str, str, Comparison, float | None]]) -> list[str]:
    """For each metric with a claim its smallest one, beside what no cause at all would give.

    tested: row, label, metric, test and corrected p of each comparison of a table.
    """
    smallest: dict[str, Claim] = {}
    for row, label, metric, test, corrected in tested:
        if corrected is not None and corrected < ALPHA and test.difference is not None:
            former = smallest.get(metric)
            if former is None or abs(test.difference) < abs(former.test.difference):
                smallest[metric] = Claim(row, label, metric, test)
    notes = [_note(section, claim) for claim in smallest.values()]
    known = [note for note in notes if note is not None]
    if smallest and not known:
        known = [NOT_MEASURED]
    return known


def _note(section: Section, claim: Claim) -> str | None:
    run: dict[str, Any] = section.run(claim.row, min(claim.row.runs))
    noise = noise_of(section.collected, tuple(str(run[key]) for key in GROUP_KEYS), claim.metric)
    if noise is None or noise.seeds.sd is None:
        return None
    effect, n = abs(claim.test.difference), claim.test.n or claim.test.n_a
    told = [
        f"Smallest claim in {claim.metric}: {number_text(effect)} ({claim.label})",
        f"two arms of one configuration, {n} other seeds each, differ by {number_text(noise.unpaired(n))}",
    ]
    if noise.rounding.sd is not None:
        paired = noise.rounding.sd / math.sqrt(n)
        told.append(f"the same {n} seeds on two threads by {number_text(paired)}")
    return f"{'; '.join(told)} (standard deviations, make aa)."
