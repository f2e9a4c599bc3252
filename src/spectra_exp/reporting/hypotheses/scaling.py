"""H6: SPECTRA's gain over Switch grows with the size of the model, in the study `scaling_model`."""

from __future__ import annotations

import math

from spectra_exp.reporting.grid import SWITCH, Section
from spectra_exp.reporting.hypotheses.parts import Ruling, judge, sloped
from spectra_exp.reporting.hypotheses.samples import Lack, Sample, fill_command, same_seeds, sample, test_seeds
from spectra_exp.reporting.tables.pairs import Size, pair_sizes
from spectra_exp.runs.pairing import GROUP_KEYS
from spectra_exp.statistics.trends import MIN_CONDITIONS, slope_over

GAIN = "gain"


def model_scaling(section: Section, rule: str) -> Ruling:
    """H6: the slope over log active parameters of each seed's gain (Switch − SPECTRA in validation loss)."""
    sizes, active, left_out, commands = [], [], [], []
    arms: dict[tuple[str, str], dict[int, float]] = {}
    for size in pair_sizes(section, {"router": "spectra"}, SWITCH, rule):
        try:
            arms |= _gains(section, size, rule).values
        except Lack as lack:
            left_out.append(f"without {size.label}: {lack.reason}")
            commands += [lack.command] if lack.command else []
        else:
            sizes.append(size)
            active.append(_active(section, size))
    if unknown := [size.label for size, count in zip(sizes, active, strict=True) if not count]:
        raise Lack(f"active parameters not known: {'; '.join(unknown)}")
    if len(set(active)) < MIN_CONDITIONS:
        reason = f"fewer than {MIN_CONDITIONS} sizes that differ in active parameters"
        raise Lack("; ".join([reason, *left_out]), next(iter(commands), ""))
    if problem := _other_data(section, sizes):
        raise Lack(problem)
    common = same_seeds(arms, fill_command(section, rule))
    seeds = sorted(next(iter(common.values.values())))
    gains_NK = [[gains[seed] for gains in common.values.values()] for seed in seeds]
    slope = slope_over(gains_NK, [math.log(count) for count in active])
    what = "; ".join([f"gain over {len(sizes)} sizes", *left_out])
    return judge([sloped(what, slope, "higher", "nats per e-fold of active parameters")])


def _gains(section: Section, size: Size, rule: str) -> Sample:
    """The paired gain of one size, seed by seed."""
    found = sample(section, {"SPECTRA": size.method, "Switch": size.against}, ("val_loss",), rule)
    # A line through sizes does not allow for looks.
    fixed = found.at_first_look
    own, switch = (fixed.values[name, "val_loss"] for name in ("SPECTRA", "Switch"))
    return Sample({(size.label, GAIN): {seed: switch[seed] - own[seed] for seed in own}}, fixed.left_out)


def _active(section: Section, size: Size) -> float:
    """Active parameters of Switch at this size; 0 where a run does not know them."""
    assert size.against, "its gain is known"
    counts = [section.run(size.against, seed)["active_parameters"] for seed in test_seeds(size.against)]
    return sum(counts) / len(counts) if all(counts) else 0.0


def _other_data(section: Section, sizes: list[Size]) -> str:
    """What the sizes do not share of what they must have been trained and scored on; empty when they share all."""
    runs = [section.run(row, seed) for size in sizes for row in size.cells for seed in test_seeds(row)]
    other = [key for key in GROUP_KEYS if len({run[key] for run in runs}) > 1]
    return f"the sizes differ in {', '.join(key.replace('_', ' ') for key in other)}" if other else ""
