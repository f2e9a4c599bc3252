"""Figures of a row that need other rows of its section."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectra_exp.reporting.grid import Row, Section

SWITCH, DENSE = {"baseline": "switch_top2"}, {"baseline": "dense"}
# Losses this close to each other leave no gap to close.
LEAST_GAP = 1e-9


def gap_closure(section: Section, row: Row) -> dict[int, float]:
    """(Switch − method)/(Switch − dense) in validation loss by seed; the dense model has the same active size.

    Absent at seeds without all three runs, for runs that may not be compared, for the two ends themselves, and where
    the dense model is no better than Switch: there is no gap then. *Source:* docs/metrics.md.
    """
    ends = [rows[0] for wanted in (SWITCH, DENSE) if (rows := section.find(wanted))]
    if len(ends) < 2 or any(row is end for end in ends) or any(section.pair_problem(row, end) for end in ends):
        return {}
    own, switch, dense = (section.values(r, "val_loss") for r in (row, *ends))
    gaps = {seed: switch[seed] - dense[seed] for seed in own.keys() & switch.keys() & dense.keys()}
    return {seed: (switch[seed] - own[seed]) / gap for seed, gap in sorted(gaps.items()) if gap > LEAST_GAP}


DERIVED: dict[str, Callable[[Section, Row], dict[int, float]]] = {"gap_closure": gap_closure}
