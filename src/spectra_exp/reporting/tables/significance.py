"""Table 13: declared comparisons of two methods, metric by metric, with everything that a test can say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.noise import claim_notes
from spectra_exp.reporting.tables.gaps import seed_gaps
from spectra_exp.reporting.tables.spec import Choice, Ends, Gap, Part, Table, Tested, record_grid
from spectra_exp.reporting.tables.verdicts import (
    ADDED,
    OVER_SEEDS,
    SEEDS_ALONE,
    direction,
    equivalence,
    looks_text,
    verdict,
)
from spectra_exp.runs.pairing import LOSSES, is_prediction
from spectra_exp.statistics.comparison import TOO_FEW
from spectra_exp.statistics.corrections import holm_by_family
from spectra_exp.statistics.practical import non_inferior_p, region_probabilities

NAME, TITLE = "table13_significance", "Significance of each comparison"
NOT_CAUSAL = "not causal"
NO_EVIDENCE = "A loss is evidence only between two causal models."


@dataclass(frozen=True)
class Contrast:
    """Comparisons of the rows that `method` names with those that `against` names (of the same osr), in one study.

    `family`: how the comparisons of one method are called together; those of one section are corrected together (Holm).
    """

    study: str
    method: Choice
    against: Choice
    metrics: tuple[str, ...]
    family: str


def build_significance(contrasts: Sequence[Contrast], sections: Mapping[str, list[Section]]) -> Table:
    """The table over all contrasts; `sections`: those of each study."""
    import pandas as pd

    tested = [t for contrast in contrasts for section in sections[contrast.study] for t in _tested(contrast, section)]
    families = [(t.section.title, t.family) for t in tested]
    corrected = holm_by_family([t.test.p for t in tested], families)
    records = [_record(t, p) for t, p in zip(tested, corrected, strict=True)]
    parts = []
    for family in dict.fromkeys(families):
        own = [one for one, its in zip(zip(tested, records, strict=True), families, strict=True) if its == family]
        parts.append(_part(*family, own))
    found = [
        replace(t, p_corrected=p, verdict=record["verdict"])
        for t, p, record in zip(tested, corrected, records, strict=True)
    ]
    return Table(NAME, TITLE, pd.DataFrame(records, dtype=object), parts, _gaps(tested), found)


def outcomes(table: Table, section: Section) -> dict[tuple[str, str, str], Tested]:
    """(first label, second label, metric) → the comparison, of those made in this section."""
    return {(t.a.label, t.b.label, t.metric): t for t in table.tests if t.section is section}


def contrasted(contrast: Contrast, section: Section) -> Iterator[tuple[Row, Row]]:
    """The pairs of rows that the contrast compares."""
    for a in section.find(contrast.method):
        for b in section.find(contrast.against):
            if b is not a and b.key.get("osr", a.key.get("osr")) == a.key.get("osr"):
                yield a, b


def _tested(contrast: Contrast, section: Section) -> Iterator[Tested]:
    for a, b in contrasted(contrast, section):
        for metric in contrast.metrics:
            # What seeds were added for is the study's own question, tested by itself as when it was decided.
            own = any(design.metric == metric for design in a.designs | b.designs)
            family = f"{a.method} {contrast.family}" + (f": {metric}, seeds added until decided" if own else "")
            yield Tested(section, a, b, metric, family, section.compare(a, b, metric))


def _record(t: Tested, corrected: float | None) -> dict[str, Any]:
    test, better = t.test, direction(t.metric)
    near, equal = equivalence(test, t.metric)
    causal = [_causal(t.section, row) for row in (t.a, t.b)]
    blind = is_prediction(t.metric) and test.difference is not None and set(causal) != {"yes"}
    inferior = region = None
    if near and test.p is not None and (seen := test.estimate) is not None:
        region = region_probabilities(*seen, near)
        if better != "none" and test.sequential is None:
            inferior = non_inferior_p(*seen, near, better)
    return {
        "family": t.family,
        "section": t.section.title,
        "comparison": f"{t.a.label} − {t.b.label}",
        "metric": t.metric,
        "better": better,
        "causal": " / ".join(causal) if any(causal) else "",
        "n_pairs": test.n,
        "looks": "" if test.sequential is None else looks_text(test.sequential),
        "mean": test.mean_a,
        "mean_against": test.mean_b,
        "difference": test.difference,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "t": test.t,
        "df": test.df,
        "p": test.p,
        "p_holm": corrected,
        "d_z": test.d_z,
        "wilcoxon_p": test.wilcoxon_p,
        "detectable": test.detectable,
        "about": "" if test.p is None else OVER_SEEDS,
        "margin": near,
        "non_inferior_p": inferior,
        "equivalent_p": equal,
        "p_below": region and region.below,
        "p_within": region and region.within,
        "p_above": region and region.above,
        "test": test.method,
        "note": test.note,
        "verdict": NOT_CAUSAL if blind else verdict(test, corrected, t.metric),
    }


def _causal(section: Section, row: Row) -> str:
    """yes, no, or empty where it is not known of every run."""
    values = {run["causal"] for run in section.runs(row)}
    return "no" if False in values else "yes" if values == {True} else ""


SHOWN: dict[str | Ends, str] = {
    "comparison": "comparison",
    "metric": "metric",
    "causal": "causal",
    "n_pairs": "n",
    "difference": "difference",
    ("ci_low", "ci_high"): "95 % CI",
    "t": "t",
    "df": "df",
    "p": "p",
    "p_holm": "p (Holm)",
    "d_z": "d_z",
    "wilcoxon_p": "Wilcoxon p",
    "detectable": "detectable",
    "verdict": "verdict",
}


def _part(section: str, name: str, own: list[tuple[Tested, dict[str, Any]]]) -> Part:
    records = [record for _, record in own]
    printed = [
        record
        | {
            "n_pairs": f"{record['n_pairs']}{'*' if record['looks'] else ''}",
            "df": None if record["df"] is None else f"{record['df']:.3g}",
        }
        for record in records
    ]
    grid = record_grid(name, SHOWN, printed)
    tests = sum(record["p"] is not None for record in records)
    notes = [NO_EVIDENCE] if any(record["verdict"] == NOT_CAUSAL for record in records) else []
    notes += [f"Holm over {tests} tests. Difference: first − second; detectable: found with 80 % power at this n."]
    if any(record["metric"] in LOSSES and record["p"] is not None for record in records):
        notes.append(SEEDS_ALONE)
    evidence = [(t, record) for t, record in own if record["verdict"] != NOT_CAUSAL]
    tested = ((t.a, record["comparison"], t.metric, t.test, record["p_holm"]) for t, record in evidence)
    notes += claim_notes(own[0][0].section, tested)
    if any(record["looks"] for record in records):
        notes.append(f"n*: {ADDED}")
    if any(record["margin"] for record in records):
        known = {record["metric"]: record["margin"] for record in records if record["margin"]}
        margins = ", ".join(f"{m} {v:g}" for m, v in known.items())
        notes.append(f"Margins of equivalence: {margins}; tests against them are not corrected.")
    remarks: dict[str, list[str]] = {}
    for record in records:
        # Where there are no runs the gaps say so.
        if record["note"] and (record["difference"] is not None or record["note"] != TOO_FEW):
            remarks.setdefault(record["note"], []).append(f"{record['comparison']} ({record['metric']})")
    return Part(section, [grid], [*notes, *(f"{note}: {', '.join(names)}." for note, names in remarks.items())])


def _gaps(tested: Iterable[Tested]) -> list[Gap]:
    rows = {(id(t.section), id(row)): (t.section, row) for t in tested for row in (t.a, t.b)}
    return [gap for section, row in rows.values() for gap in seed_gaps(NAME, section, row)]
