"""The comparisons of table 13 document by document in validation loss, and item by item in downstream tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra_exp.foundations.errors import SpectraError
from spectra_exp.reporting.by_document import ALL, DOWNSTREAM, ByDocument, compare_by_document
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.tables.significance import Contrast, contrasted
from spectra_exp.reporting.tables.spec import Ends, Part, Table, record_grid
from spectra_exp.runs.pairing import LOSSES

NAME = "documents"
TITLE = "Validation loss document by document, for other text too and by domain; downstream tasks item by item"
# What is compared: the scores that it needs of both runs, and the title of its panel.
COMPARED = {LOSSES[0]: ("documents", "By document"), DOWNSTREAM: ("items", "Downstream tasks, by groups of items")}
FIRST_LOOK = (
    "Seeds were added until decided; the intervals are of the seeds of the first look, made whatever comes out."
)
NOTES = [
    "95 % CI: about these methods, allowing for other seeds and other text; with one seed about these runs, allowing "
    "for other text. Seeds alone: about these methods on these documents. p of domains: corrected by Holm's method.",
]
SHOWN: dict[str | Ends, str] = {
    "comparison": "comparison",
    "domain": "domain",
    "seeds": "seeds",
    "documents": "documents",
    "difference": "difference",
    ("ci_low", "ci_high"): "95 % CI",
    ("seed_low", "seed_high"): "seeds alone",
    "about": "about",
    "p_holm": "p",
    "verdict": "verdict",
}


def documents_table(contrasts: Sequence[Contrast], sections: Mapping[str, list[Section]]) -> Table | None:
    """The table; None where no comparison of causal models has the scores of its documents."""
    import pandas as pd

    records: list[dict[str, Any]] = []
    notes: dict[str, list[str]] = {}
    for contrast in contrasts:
        for section in sections[contrast.study]:
            for a, b in contrasted(contrast, section):
                if not (section.causal(a) and section.causal(b)):
                    continue
                for metric in COMPARED:
                    if (found := _compared(section, a, b, metric)) is None:
                        continue
                    records += _records(section, f"{a.label} − {b.label}", found)
                    if a.designs | b.designs:
                        notes[section.title] = [*NOTES, FIRST_LOOK]
    if not records:
        return None
    parts = []
    for title in dict.fromkeys(record["section"] for record in records):
        own = [r | {"verdict": r["verdict"] or r["note"]} for r in records if r["section"] == title]
        of = {panel: [r for r in own if r["metric"].startswith(metric)] for metric, (_, panel) in COMPARED.items()}
        grids = [record_grid(panel, SHOWN, rows) for panel, rows in of.items() if rows]
        parts.append(Part(title, grids, notes.get(title, NOTES)))
    return Table(NAME, TITLE, pd.DataFrame(records, dtype=object), parts)


def _compared(section: Section, a: Row, b: Row, metric: str) -> ByDocument | None:
    """The comparison at the seeds that both rows have, those of the first look where seeds were added until decided.

    None without the scores that it needs, or for what may not be.
    """
    looked = [set(design.first_look) for design in a.designs | b.designs]
    seeds = sorted((a.runs.keys() & b.runs.keys()).intersection(*looked))
    runs_a, runs_b = ([section.stored(row)[seed] for seed in seeds] for row in (a, b))
    if not seeds or any(run.scores(COMPARED[metric][0]) is None for run in (*runs_a, *runs_b)):
        return None
    try:
        return compare_by_document(runs_a, runs_b, metric)
    except SpectraError:
        # The tables of seeds say why: other data, other evaluation, other batches.
        return None


def _records(section: Section, comparison: str, found: ByDocument) -> list[dict[str, Any]]:
    records = []
    for one in found.outcomes:
        crossed = found.crossed if one.domain == ALL else None
        records.append(
            {
                "section": section.title,
                "comparison": comparison,
                "metric": found.metric if one.domain == ALL else f"{found.metric}_{one.domain}",
                "domain": one.domain,
                "seeds": found.seeds,
                "documents": one.documents,
                "tokens": one.tokens,
                "difference": one.difference,
                "ci_low": one.ci_low,
                "ci_high": one.ci_high,
                "seed_low": crossed and crossed.seed_low,
                "seed_high": crossed and crossed.seed_high,
                "share_text": crossed and crossed.share_text,
                "enough_tokens": crossed and crossed.enough_tokens,
                "about": found.claim,
                "p": one.p,
                "p_holm": one.p_corrected,
                "p_below": one.region and one.region.below,
                "p_within": one.region and one.region.within,
                "p_above": one.region and one.region.above,
                "note": one.note,
                "verdict": one.verdict,
            }
        )
    return records
