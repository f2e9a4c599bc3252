"""H5: every single ablation worse in its own declared metric, and the ladder of parts monotone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from spectra_exp.config.names import ablation_name
from spectra_exp.config.presets import FULL, ablations, ladder
from spectra_exp.reporting.grid import Section
from spectra_exp.reporting.hypotheses.parts import Part, Ruling, Side, judge, ordered
from spectra_exp.reporting.hypotheses.samples import Lack, Rows, difference, one_row, sample
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.studies.cells import holds
from spectra_exp.studies.definition import Study

WORSE: dict[str, Side] = {"lower": "higher", "higher": "lower"}


def ablation_importance(section: Section, rule: str) -> Ruling:
    """H5. Two families: the ablations, and the ladder."""
    assert section.study, "a hypothesis is about a study"
    known = wanted_ablations(section.study, rule)
    declared = declared_metrics()
    parts = [
        difference(section, _rows(section, rule, (name, FULL)), metric, WORSE[direction(metric)], rule, "ablations")
        for name in known
        if (metric := declared.get(name))
    ]
    # A rung that a rule refuses is what the full method already is.
    rungs = [rung if rung in known else FULL for rung in ladder()]
    trend, steps = _ladder(section, rule, rungs)
    return judge([*parts, trend], steps)


def declared_metrics() -> dict[str, str]:
    """The metric that each single ablation is said to worsen, from its file in `conf/ablation`."""
    return {name: ablation.metric for name, ablation in ablations().items() if ablation.metric}


def wanted_ablations(study: Study, rule: str) -> list[str]:
    """The ablations that the study has under a rule."""
    cells = [(block, {**cell, "osr": rule}) for block in study.blocks for cell in block.cells()]
    return list(dict.fromkeys(cell["ablation"] for block, cell in cells if holds(block, cell)))


def _ladder(section: Section, rule: str, rungs: list[str]) -> tuple[Part, list[Part]]:
    """Page's trend over the rungs, and each rung against the one below, which it may not be worse than."""
    what = "val_loss falls from rung to rung"
    rows = _rows(section, rule, rungs)
    try:
        found = sample(section, rows, ("val_loss",), rule)
    except Lack as lack:
        return lack.part(what, "ladder"), []
    losses = {name: found.values[name, "val_loss"] for name in rows}
    steps = [
        found.compared(f"val_loss, {rung} − {below}", losses[rung], losses[below], "lower", "ladder")
        for below, rung in pairwise(rows)
    ]
    try:
        fixed = found.at_first_look
    except Lack as lack:
        return lack.part(what, "ladder"), steps
    # Page's test is of a rise, so the ladder is read from its top.
    arms = [fixed.values[name, "val_loss"] for name in reversed(list(rows))]
    return ordered(what, [[arm[seed] for arm in arms] for seed in arms[0]], "ladder"), steps


def _rows(section: Section, rule: str, options: Sequence[str]) -> Rows:
    return {ablation_name(option): one_row(section, {"osr": rule, "ablation": option}) for option in options}
