"""Pictures of any set of runs, whatever study asked for them: a figure for each group of runs that may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spectra_exp.presentation.panels import Page
from spectra_exp.presentation.style import DOUBLE
from spectra_exp.reporting.figures.expert_usage import LayerUsage, StackedUsage
from spectra_exp.reporting.figures.kinds import HISTORY, SNAPSHOTS, SUMMARY, training
from spectra_exp.reporting.figures.labels import by_row
from spectra_exp.reporting.figures.spec import Compose, FigureSpec
from spectra_exp.reporting.figures.tradeoff import Tradeoff
from spectra_exp.reporting.figures.training import Curve, Training
from spectra_exp.reporting.grid import SWITCH, Row, Section

# Rows that a picture has room for, and groups of comparable runs that are drawn.
MOST, MOST_GROUPS = 10, 4
LOSS, LOAD = "val_loss", "load_cv"


def some_rows(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows that a picture shows, those with the most seeds and of these the plainest, and what it says."""
    found = [row for row in rows if row.runs]
    first = sorted(found, key=_rank)[:MOST]
    kept = [row for row in found if any(row is one for one in first)]
    said = f"{MOST} of {len(found)} rows shown: those with the most seeds and the fewest settings of their own."
    return kept, [said] if len(kept) < len(found) else []


def some_groups(sections: Sequence[Section]) -> tuple[list[Section], list[str]]:
    """The groups of comparable runs that are drawn, the largest, and what is said of others."""
    said = (
        f"{MOST_GROUPS} of {len(sections)} groups of comparable runs are drawn, the largest; study=NAME draws another."
    )
    return list(sections[:MOST_GROUPS]), [said] if len(sections) > MOST_GROUPS else []


def _rank(row: Row) -> tuple[int, int, bool, str]:
    """What is shown first sorts first; of rows that are as plain, the two that the sentence on the runs is about."""
    others = not (row.matches({"router": "spectra"}) or row.matches(SWITCH))
    return -len(row.runs), row.label.count(",") + ("ablation" in row.key), others, row.label


def _of_some(compose: Compose) -> Compose:
    """The page of `some_rows`."""

    def page_of(section: Section, rows: Sequence[Row]) -> Page:
        kept, said = some_rows(rows)
        page = compose(section, kept)
        return replace(page, footnotes=(*page.footnotes, *said))

    return page_of


CURVES = Training((Curve("train_loss", "train"), Curve(LOSS)), (DOUBLE, 3.0), naming=by_row)
OWN = tuple(
    FigureSpec(f"runs_{name}", title, "", needs, _of_some(compose))
    for name, title, needs, compose in (
        ("loss", "Training and validation loss over training", HISTORY, CURVES),
        ("tradeoff", "Validation loss against load CV", SUMMARY, Tradeoff(LOAD, LOSS)),
        ("balance", "Balance over training", HISTORY, replace(training("balance"), naming=by_row)),
        ("entropy", "Routing entropy over training", HISTORY, replace(training("entropy"), naming=by_row)),
        ("gradients", "Gradient norms over training", HISTORY, replace(training("gradients"), naming=by_row)),
        ("usage", "Expert usage over training", SNAPSHOTS, StackedUsage(naming=by_row)),
        ("layers", "Load by expert and layer at the end of training", SNAPSHOTS, LayerUsage(by_row)),
    )
)
