"""The table of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from spectra_exp.reporting.hypotheses.catalogue import Verdict
from spectra_exp.reporting.tables.spec import Gap, Grid, Part, Table
from spectra_exp.reporting.tables.verdicts import ADDED

NAME = "hypotheses"
NOTES = (
    "A claim is supported only if each of its tests is significant for it, contradicted if one is significant "
    "against it, else inconclusive; p-values are two-sided, corrected by Holm within the hypothesis.",
    "Brackets: 95 % interval. Detectable: found with 80 % power at this n.",
)
LOOKS = (
    f"Looks: {ADDED} Trends and slopes do not allow for looks and are of the seeds of the first one, which are made "
    "whatever comes out."
)


def hypotheses_table(verdicts: Sequence[Verdict]) -> Table:
    """The verdicts, what they rest on and how each is tested; an untested one is a gap with its command."""
    import pandas as pd

    columns = [field.name for field in fields(Verdict)]
    frame = pd.DataFrame([asdict(v) for v in verdicts], columns=columns, dtype=object)
    gaps = [
        Gap(NAME, v.section, " ".join(filter(None, [v.name, v.rule])), v.claim, v.reason, v.command)
        for v in verdicts
        if v.verdict == "not tested"
    ]
    notes = [*NOTES, *([LOOKS] if any("(looks " in v.figures for v in verdicts) else [])]
    grids = [_verdicts(verdicts), _figures(verdicts), _tests(verdicts)]
    return Table(NAME, "Hypotheses", frame, [Part("all finished runs", grids, notes)], gaps)


def _verdicts(verdicts: Sequence[Verdict]) -> Grid:
    places = _places(verdicts)
    rows = [[v.name, *place, v.claim, v.verdict, v.reason] for v, place in zip(verdicts, places.rows, strict=True)]
    return Grid("Verdicts", ["hypothesis", *places.headers, "claim", "verdict", "reason"], rows)


def _figures(verdicts: Sequence[Verdict]) -> Grid:
    places = _places(verdicts)
    rows = [
        [v.name, *place, figure]
        for v, place in zip(verdicts, places.rows, strict=True)
        for figure in v.figures.split("; ")
        if figure
    ]
    return Grid("Figures", ["hypothesis", *places.headers, "figure"], rows)


def _tests(verdicts: Sequence[Verdict]) -> Grid:
    rows = list(dict.fromkeys((v.name, v.claim, v.test) for v in verdicts))
    return Grid("Tests", ["hypothesis", "claim", "test"], [list(row) for row in rows])


def _places(verdicts: Sequence[Verdict]) -> Grid:
    """The columns that say where a verdict holds; sections only when there are several."""
    several = len({v.section for v in verdicts if v.section}) > 1
    headers = ["rule", *(["section"] if several else [])]
    return Grid("", headers, [[getattr(v, header) for header in headers] for v in verdicts])
