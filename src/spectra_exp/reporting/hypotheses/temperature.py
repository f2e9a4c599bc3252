"""T1 to T4: the hypotheses of the temperature study."""

from __future__ import annotations

import math
from itertools import pairwise

import yaml

from spectra_exp.config.tree import option_files
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.hypotheses.parts import (
    Part,
    Ruling,
    Side,
    correct,
    correlated,
    figure_text,
    is_significant,
    judge,
    ordered,
    settle,
    sloped,
)
from spectra_exp.reporting.hypotheses.samples import (
    Lack,
    Rows,
    Sample,
    design_of,
    fill_command,
    one_row,
    same_seeds,
    sample,
    test_seeds,
    usable_rows,
)
from spectra_exp.runs.best_long import CONSTANTS
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.trends import slope_over, spearman

RANKING = ("cosine", "exponential", "step", "linear")
BEST_FROM, BEST_TO = 1.5, 2.0
# The paper's: unequal above 0.3 at 0.5, about 0.2 at 1 (nearer than the next bound, 0.15), even below 0.15 at 2.
GINI_BOUNDS: tuple[tuple[str, Side, float], ...] = (
    ("t0_5", "higher", 0.3),
    ("t1_0", "higher", 0.15),
    ("t1_0", "lower", 0.25),
    ("t2_0", "lower", 0.15),
)
EARLY, LATE = 0.1, 1.0
NEAR = 0.05  # how far from the wanted fraction an evaluation may lie, in short runs


def best_constant(section: Section) -> Ruling:
    """T1: the constant with the lowest loss lies in [1.5, 2].

    Supported when one inside is better than every one outside, contradicted when one outside is better than every one
    inside; Holm over all pairs of the two, so that no constant is picked before it is tested.
    """
    found = sample(section, _rows(section, CONSTANTS), ("val_loss",))
    losses = {name: found.values[name, "val_loss"] for name in CONSTANTS}
    degrees = degrees_of()
    inside = [name for name in CONSTANTS if BEST_FROM <= degrees[name] <= BEST_TO]
    outside = [name for name in CONSTANTS if name not in inside]
    pairs = {
        (i, o): found.compared(f"val_loss, {degrees[i]:g} − {degrees[o]:g}", losses[i], losses[o], "lower")
        for i in inside
        for o in outside
    }
    corrected = dict(zip(pairs, correct(list(pairs.values())), strict=True))
    decided = {key: part.toward for key, part in pairs.items() if is_significant(corrected[key])}
    means = {name: sum(losses[name].values()) / len(losses[name]) for name in CONSTANTS}
    best, front = min(CONSTANTS, key=means.__getitem__), min(inside, key=means.__getitem__)
    shown = [figure_text(pairs[front, o], corrected[front, o]) for o in outside]
    against = [
        f"{degrees[o]:g} below every one inside" for o in outside if all(decided.get((i, o)) is False for i in inside)
    ]
    held = any(all(decided.get((i, o)) for o in outside) for i in inside)
    open_ones = [] if held else [pairs[front, o].what for o in outside if not decided.get((front, o))]
    head = f"lowest mean val_loss: {number_text(means[best])} at {degrees[best]:g}"
    return settle([head, *shown], against, list(pairs.values()), open_ones)


def scheduling(section: Section) -> Ruling:
    """T2: cosine better than the best constant, so than every one; the schedules ranked as predicted, none reversed.

    Two families: the constants, and the ranking.
    """
    found = sample(section, _rows(section, (*CONSTANTS, *RANKING)), ("val_loss",))
    losses = {name: values for (name, _), values in found.values.items()}
    degrees, cosine = degrees_of(), RANKING[0]

    def below(name: str, other: str, shown: str, family: str) -> Part:
        return found.compared(f"val_loss, {name} − {shown}", losses[name], losses[other], "lower", family)

    parts = [below(cosine, name, f"{degrees[name]:g}", "constants") for name in CONSTANTS]
    what = f"val_loss rises over {', '.join(RANKING)}"
    try:
        early = [found.at_first_look.values[name, "val_loss"] for name in RANKING]
        ranked = ordered(what, [[values[seed] for values in early] for seed in early[0]], "ranking")
    except Lack as lack:
        ranked = lack.part(what, "ranking")
    steps = [below(name, after, after, "ranking") for name, after in pairwise(RANKING)]
    return judge([*parts, ranked], steps)


def load_imbalance(section: Section) -> Ruling:
    """T3: the Gini coefficient of the load falls over the constants, and lies where the paper expects it at three."""
    found = sample(section, _rows(section, CONSTANTS), ("load_gini",))
    ginis = {name: found.values[name, "load_gini"] for name in CONSTANTS}
    degrees = degrees_of()
    what = "load_gini over temperature"
    try:
        early = [found.at_first_look.values[name, "load_gini"] for name in CONSTANTS]
        means = [sum(values.values()) / len(values) for values in early]
        trend = correlated(what, spearman([degrees[name] for name in CONSTANTS], means), "lower")
    except Lack as lack:
        trend = lack.part(what)
    bounds = [
        found.compared(
            f"load_gini at {degrees[name]:g} − {bound:g}", ginis[name], dict.fromkeys(ginis[name], bound), side
        )
        for name, side, bound in GINI_BOUNDS
    ]
    return judge([trend, *bounds])


def entropy_fall(section: Section) -> Ruling:
    """T4: routing entropy lower at the end of training than at 10 %, and by more at low constants."""
    found = _falls(section)
    falls = list(found.values.values())
    seeds = sorted(falls[0])
    degrees = degrees_of()
    mean_fall = {seed: sum(values[seed] for values in falls) / len(falls) for seed in seeds}
    what, no_fall = "fall of routing_entropy, mean over the constants", dict.fromkeys(seeds, 0.0)
    overall = found.compared(what, mean_fall, no_fall, "higher")
    what = "the fall over temperature"
    try:
        early = list(found.at_first_look.values.values())
    except Lack as lack:
        return judge([overall, lack.part(what)])
    slope = slope_over(
        [[values[seed] for values in early] for seed in early[0]], [math.log(degrees[name]) for name in CONSTANTS]
    )
    return judge([overall, sloped(what, slope, "lower", "nats per e-fold of T")])


def degrees_of() -> dict[str, float]:
    """The temperature of each constant, from its file in `conf/temperature`."""
    files = option_files("temperature")
    return {name: float(yaml.safe_load(files[name].read_text())["value"]) for name in CONSTANTS}


def _falls(section: Section) -> Sample:
    """For each constant and seed, routing entropy at 10 % of training less that at its end, in nats."""
    rows = usable_rows(section, _rows(section, CONSTANTS), ("routing_entropy",))
    arms: dict[tuple[str, str], dict[int, float]] = {}
    problems = []
    for name, row in rows.items():
        values = arms.setdefault((name, "history of routing_entropy"), {})
        for seed in test_seeds(row):
            fall = entropy_between(section.collected.run(row.runs[seed]))
            if isinstance(fall, str):
                problems.append(fall)
            else:
                values[seed] = fall
    try:
        return same_seeds(arms, fill_command(section), design_of(rows))
    except Lack as lack:
        raise Lack("; ".join([lack.reason, *problems[:1]]), lack.command) from lack


def entropy_between(stored: StoredRun) -> float | str:
    """Validation routing entropy (all layers) at 10 % of training less that at 100 %, or why there is none."""
    frame = stored.history
    if frame is None:
        return f"{stored.folder.history}: {stored.problems.get(stored.folder.history, 'there is none')}"
    rows = frame[(frame["split"] == "validation") & (frame["layer"] == "all") & (frame["metric"] == "routing_entropy")]
    ends = []
    for wanted in (EARLY, LATE):
        near = rows[(rows["fraction"] - wanted).abs() <= NEAR]
        if near.empty:
            return f"{stored.run_id}: no routing_entropy at {wanted:.0%} of training"
        ends.append(float(near.loc[(near["fraction"] - wanted).abs().idxmin(), "value"]))
    return ends[0] - ends[1]


def _rows(section: Section, names: tuple[str, ...]) -> Rows:
    return {name: one_row(section, {"temperature": name}) for name in names}
