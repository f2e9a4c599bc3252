"""The table of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from spectra_exp.reporting.hypotheses.catalogue import Verdict
from spectra_exp.reporting.tables.spec import Gap, Part, Table, record_grid
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
    records = [asdict(v) for v in verdicts]
    frame = pd.DataFrame(records, columns=columns, dtype=object)
    gaps = [
        Gap(NAME, v.section, " ".join(filter(None, [v.name, v.rule])), v.claim, v.reason, v.command)
        for v in verdicts
        if v.verdict == "not tested"
    ]
    notes = [*NOTES, *([LOOKS] if any("(looks " in v.figures for v in verdicts) else [])]
    section = {"section": "section"} if len({v.section for v in verdicts if v.section}) > 1 else {}
    place = {"name": "hypothesis", "rule": "rule", **section}
    figures = [r | {"figure": figure} for r in records for figure in r["figures"].split("; ") if figure]
    tests = list({(v.name, v.claim, v.test): asdict(v) for v in verdicts}.values())
    grids = [
        record_grid("Verdicts", place | {"claim": "claim", "verdict": "verdict", "reason": "reason"}, records),
        record_grid("Figures", place | {"figure": "figure"}, figures),
        record_grid("Tests", {"name": "hypothesis", "claim": "claim", "test": "test"}, tests),
    ]
    return Table(NAME, "Hypotheses", frame, [Part("all finished runs", grids, notes)], gaps)
