"""The effects that others published, as studies' files declare them: their tests, verdicts and table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectra_exp.reporting.grid import Choice, Row, Section
from spectra_exp.reporting.hypotheses.samples import not_causal
from spectra_exp.reporting.tables.gaps import seed_gaps
from spectra_exp.reporting.tables.spec import Ends, Gap, Grid, Part, Table, record_grid
from spectra_exp.runs.history import TRAINING_RULE
from spectra_exp.runs.pairing import is_prediction
from spectra_exp.statistics.comparison import Comparison, compare
from spectra_exp.statistics.corrections import holm
from spectra_exp.statistics.replication import Claim, Decision, decide

NAME, TITLE = "replications", "Published effects, looked for again"
# Of `against`: what chance would give in the very runs.
CHANCE = "chance"
NOT_RUN = "not run"
RULE = (
    "Paired t tests over seeds. lower, higher: reproduced where that is significant (two-sided, Holm over the tests of "
    "an effect), contradicted where the contrary is, or where the difference is shown to be within the tolerance. "
    "equal, not higher, not lower: by tests against the tolerance, one-sided and not corrected. p is of the test that "
    "decided, or of the one that would have, with its null hypothesis beside it. An effect is reproduced if all of its "
    "tests say so, contradicted if one does."
)


@dataclass(frozen=True)
class Effect:
    """One claim: `method` − `against` in the metric lies on a side, or within `tolerance` (in the metric's unit).

    `source`, `figure`: who found it, and what was found there; `against` is None for the metric's own chance floor;
    `against_metric`: the metric of the other row, the same but for another rule of routing.
    """

    study: str
    method: Choice
    against: Choice | None
    metric: str
    claim: Claim
    tolerance: float
    source: str
    figure: str
    against_metric: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric of each row."""
        return (self.metric,) if self.against is None else (self.metric, self.against_metric)


@dataclass(frozen=True)
class Finding:
    """An effect in one section: its two rows (`against` is None for chance), the test, and what follows of it."""

    effect: Effect
    section: Section
    rows: tuple[Row | None, ...]
    test: Comparison
    p_corrected: float | None
    decision: Decision | None  # None: not run
    reason: str

    @property
    def outcome(self) -> str:
        """What the finding says of the claim."""
        return NOT_RUN if self.decision is None else self.decision.outcome

    @property
    def comparison(self) -> str:
        """The two that are compared."""
        alike = len(set(self.effect.metrics)) == 1
        names = [
            (row.label if row else NOT_RUN) + ("" if alike else f" ({metric})")
            for row, metric in zip(self.rows, self.effect.metrics, strict=True)
        ]
        return " − ".join([*names, *([CHANCE] if self.effect.against is None else [])])


def findings(effects: Sequence[Effect], sections: Sequence[Section]) -> list[list[Finding]]:
    """What each section of a study says of its effects; those of seeds on which settings are chosen say nothing."""
    return [_findings(effects, section) for section in sections if effects and not section.choosing]


def _findings(effects: Sequence[Effect], section: Section) -> list[Finding]:
    found = []
    for effect in effects:
        rows = _rows(effect, section)
        reason = _unusable(effect, section, rows)
        test = compare({}, {}) if reason else _compared(effect, section, [row for row in rows if row is not None])
        found.append((effect, rows, test, reason))
    corrected = holm({index: test.p for index, (_, _, test, _) in enumerate(found)})
    return [
        Finding(
            effect,
            section,
            rows,
            test,
            p,
            None if reason else decide(effect.claim, test, p, effect.tolerance),
            reason or test.note,
        )
        for (effect, rows, test, reason), p in zip(found, corrected.values(), strict=True)
    ]


def together(found: Sequence[Finding]) -> str:
    """The verdict on the effects of a study: every one of them is needed."""
    said = Counter(finding.outcome for finding in found)
    return next((word for word in ("contradicted", NOT_RUN, "inconclusive") if said[word]), "reproduced")


def build_replications(
    effects: Mapping[str, Sequence[Effect]], titles: Mapping[str, str], sections: Mapping[str, list[Section]]
) -> Table:
    """The table over the effects of all studies; `titles`: of each study."""
    import pandas as pd

    found = [group for study, own in effects.items() for group in findings(own, sections[study])]
    records = [_record(titles, finding, together(group)) for group in found for finding in group]
    verdicts = []
    for group in found:
        reasons = "; ".join(dict.fromkeys(one.reason for one in group if one.reason))
        verdicts.append([titles[group[0].effect.study], group[0].section.title, together(group), reasons])
    grids = [
        Grid("Verdicts", ["effect", "section", "verdict", "remarks"], verdicts),
        record_grid("Tests", SHOWN, records),
    ]
    parts = [Part("Verdicts and tests", grids, [RULE])]
    return Table(NAME, TITLE, pd.DataFrame(records, dtype=object), parts if records else [], _gaps(found))


def _rows(effect: Effect, section: Section) -> tuple[Row | None, ...]:
    wanted = [effect.method, *([] if effect.against is None else [effect.against])]
    # The row without further settings of its own, where several have these values.
    return tuple(min(section.find(choice), key=lambda row: len(row.key), default=None) for choice in wanted)


def _unusable(effect: Effect, section: Section, rows: Sequence[Row | None]) -> str:
    for row, metric in zip(rows, effect.metrics, strict=True):
        if row is None or not row.runs:
            return f"no finished run of {row.label if row else 'a row'}"
        if not section.values(row, metric):
            return f"no {metric} in the runs of {row.label}"
        # What a rule that sees the future scores is claimed of it by name.
        by_inference = is_prediction(metric) and TRAINING_RULE not in metric
        if by_inference and (problem := not_causal(section, row.label, row)):
            return problem
    if len(rows) > 1 and (problem := section.pair_problem(*(row for row in rows if row is not None))):
        return f"may not be compared: {problem}"
    return ""


def _compared(effect: Effect, section: Section, rows: Sequence[Row]) -> Comparison:
    values = [section.values(row, metric) for row, metric in zip(rows, effect.metrics, strict=True)]
    if effect.against is None:
        figures = section.collected.figures
        values.append({seed: figures[rows[0].runs[seed], effect.metric][1] for seed in values[0]})
    return compare(*values)


def _record(titles: Mapping[str, str], found: Finding, verdict: str) -> dict[str, Any]:
    effect, test = found.effect, found.test
    return {
        "effect": titles[effect.study],
        "study": effect.study,
        "section": found.section.title,
        "source": effect.source,
        "figure": effect.figure,
        "comparison": found.comparison,
        "metric": effect.metric,
        "claimed": effect.claim,
        "tolerance": effect.tolerance,
        "n_pairs": test.n,
        "mean": test.mean_a,
        "mean_against": test.mean_b,
        "difference": test.difference,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "p": test.p,
        "p_holm": found.p_corrected,
        "p_decided": found.decision.p if found.decision else None,
        "null_hypothesis": found.decision.null if found.decision else "",
        "test": test.method,
        "note": found.reason,
        "verdict": found.outcome,
        "effect_verdict": verdict,
    }


SHOWN: dict[str | Ends, str] = {
    "effect": "effect",
    "comparison": "comparison",
    "metric": "metric",
    "claimed": "claim",
    "tolerance": "tolerance",
    "n_pairs": "n",
    "mean": "mean",
    "mean_against": "against",
    "difference": "difference",
    ("ci_low", "ci_high"): "95 % CI",
    "p_decided": "p",
    "null_hypothesis": "null hypothesis",
    "verdict": "says",
}


def _gaps(found: Sequence[Sequence[Finding]]) -> list[Gap]:
    rows = {id(row): (f.section, row) for group in found for f in group for row in f.rows if row is not None}
    return [gap for section, row in rows.values() for gap in seed_gaps(NAME, section, row)]
