"""Methods over the settings that a table spans, such as data or sizes: ranks, and who is better how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spectra_exp.presentation.text import bounds_text, number_text
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.tables.spec import Grid, Part
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.runs.pairing import is_prediction
from spectra_exp.statistics.over_settings import FEWEST_SEEDS, FEWEST_SETTINGS, Estimate, over_settings

# The rows of one setting, by the name that a method has in all of them.
Setting = tuple[Section, Mapping[str, Row]]


def settings_part(settings: Mapping[str, Setting], metrics: Sequence[str], against: str) -> list[Part]:
    """The part over all settings (by name): a grid for each metric that two methods have in two of them; else none.

    against: the method whose runs the others are set beside.
    """
    grids = [grid for metric in metrics if (grid := _grid(settings, metric, against)) is not None]
    if not grids:
        return []
    notes = [
        f"Settings: {'; '.join(settings)}.",
        "Rank: 1 is the best method of a seed; interquartile mean over settings and seeds. P: probability that a run "
        "is better, averaged over settings. Brackets: 95 % bootstrap interval, seeds drawn within each setting.",
    ]
    return [Part("Over all settings", grids, notes)]


def _grid(settings: Mapping[str, Setting], metric: str, against: str) -> Grid | None:
    better = direction(metric)
    if better == "none":
        return None
    used = [found for section, rows in settings.values() if len(found := _values(section, rows, metric)) > 1]
    names = [name for name in (used[0] if used else ()) if all(name in found for found in used)]
    if len(used) < FEWEST_SETTINGS or len(names) < 2:
        return None
    values = []
    for found in used:
        seeds = sorted(set.intersection(*(set(found[name]) for name in names)))
        values.append({name: [found[name][seed] for seed in seeds] for name in names})
    if min(len(own[names[0]]) for own in values) < FEWEST_SEEDS:
        return None
    over = over_settings(values, better)
    beside = against if against in names else min(names, key=lambda name: over.rank[name].value)
    body = [
        [name, _text(over.rank[name]), "" if name == beside else _text(over.improvement[name, beside])]
        for name in sorted(names, key=lambda name: over.rank[name].value)
    ]
    return Grid(f"{metric}: {over.settings} settings", ["method", "rank", f"P(better than {beside})"], body)


def _values(section: Section, rows: Mapping[str, Row], metric: str) -> dict[str, dict[int, float]]:
    """The values by seed of each method that may be compared with the first of them.

    Where seeds were added until decided, those of the first look: a bootstrap does not allow for looks.
    """
    found: dict[str, dict[int, float]] = {}
    first: Row | None = None
    for name, row in rows.items():
        looked = [design.first_look for design in row.designs]
        values = {s: v for s, v in section.values(row, metric).items() if all(s in seeds for seeds in looked)}
        if len(values) < FEWEST_SEEDS or (is_prediction(metric) and not section.causal(row)):
            continue
        first = first or row
        if row is first or section.pair_problem(row, first) is None:
            found[name] = values
    return found


def _text(estimate: Estimate) -> str:
    return f"{number_text(estimate.value)} {bounds_text(estimate.low, estimate.high)}"
