"""`spectra-exp compare`: runs compared by what each held-out document scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_exp.archive.sources import SourceOptions, read_sources
from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.collect import collect
from spectra_exp.reporting.pairing import pair_problem
from spectra_exp.reporting.tables.significance import MARGINS, NO_EVIDENCE
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.runs.scores import DOCUMENTS, ITEMS
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.by_document import LITTLE, Components, Estimate, over_seeds, per_token
from spectra_exp.statistics.corrections import holm
from spectra_exp.statistics.practical import Chances, Verdict, chances, verdict

if TYPE_CHECKING:
    import pandas as pd

# Metric: the column of the documents' scores that it is the mean per token of.
SUMS = {"val_loss": "loss", "val_accuracy": "correct"}
# The mean over items of each downstream task: items that share a passage are one document, tasks are domains.
DOWNSTREAM = "downstream"
ALL = "all"
THESE_RUNS, THESE_METHODS = "these runs", "these methods"
# What runs must share for one to be compared with the other on the same documents.
SAME = ("data_fingerprint", "evaluation_fingerprint")


@dataclass(frozen=True)
class Outcome:
    """a − b on the documents of one domain, or of all; p_corrected: by Holm over the domains, of all: p itself."""

    domain: str
    documents: int
    tokens: int
    estimate: Estimate
    p_corrected: float | None
    chances: Chances | None
    verdict: Verdict


@dataclass(frozen=True)
class ByDocument:
    """A comparison document by document. `claim`: what its intervals are about, these runs or these methods.

    `outcomes`: of all documents first, then by domain; `components`: of all, where there are several seeds.
    """

    metric: str
    claim: str
    seeds: int
    margin: float | None
    outcomes: list[Outcome]
    components: Components | None
    notes: list[str]


def compare_by_document(
    a: Sequence[StoredRun], b: Sequence[StoredRun], metric: str = "val_loss", margin: float | None = None
) -> ByDocument:
    """The difference a − b per token. One run each: about these models; several, paired by seed: about the methods.

    margin: the region of practical equivalence, of `MARGINS` where it is None. Raises ConfigError for another metric
    and for runs that may not be compared, SpectraError for one without scores of its documents.
    """
    if metric not in (*SUMS, DOWNSTREAM):
        raise ConfigError.unknown("metric", metric, (*SUMS, DOWNSTREAM))
    pairs, notes = _pairs(a, b)
    read, column = (_items, "score") if metric == DOWNSTREAM else (_documents, SUMS[metric])
    margin = MARGINS.get(metric) if margin is None else margin
    tables = [tuple(read(run) for run in pair) for pair in pairs]
    first = tables[0][0]
    for run, table in zip((run for pair in pairs for run in pair), (t for pair in tables for t in pair), strict=True):
        if not table[["id", "tokens"]].equals(first[["id", "tokens"]]):
            what = "items of tasks" if metric == DOWNSTREAM else "documents"
            raise ConfigError("runs", f"{run.run_id} was scored on other {what}", "compare runs of one set-up")
    difference_SG = np.array([(x[column] - y[column]).to_numpy(float) for x, y in tables])
    tokens_G, domains_G = first["tokens"].to_numpy(float), first["domain"].to_numpy(str)
    domains = sorted(set(domains_G))
    names = domains if metric == DOWNSTREAM else [ALL, *(domains if len(domains) > 1 else [])]
    of = {name: np.full(len(first), True) if name == ALL else domains_G == name for name in names}
    estimates = {name: _estimate(difference_SG[:, chosen], tokens_G[chosen]) for name, chosen in of.items()}
    corrected = {name: found.p for name, found in estimates.items()}
    corrected |= holm({name: p for name, p in corrected.items() if name != ALL})
    several = len(pairs) > 1
    return ByDocument(
        metric,
        THESE_METHODS if several else THESE_RUNS,
        len(pairs),
        margin,
        [
            Outcome(
                name,
                int(of[name].sum()),
                int(tokens_G[of[name]].sum()),
                found,
                corrected[name],
                None
                if margin is None or found.error is None
                else chances(found.difference, found.error, found.df, margin),
                verdict(
                    found.interval(0.90),
                    corrected[name],
                    margin,
                    direction(f"{metric}_" if metric == DOWNSTREAM else metric),
                ),
            )
            for name, found in estimates.items()
        ],
        over_seeds(difference_SG, tokens_G) if several and len(first) > 1 and metric != DOWNSTREAM else None,
        notes,
    )


def _estimate(difference_SG: np.ndarray, tokens_G: np.ndarray) -> Estimate:
    if len(difference_SG) == 1 or len(tokens_G) == 1:
        return per_token(difference_SG.mean(axis=0), tokens_G)
    return over_seeds(difference_SG, tokens_G).both


def _pairs(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> tuple[list[tuple[StoredRun, StoredRun]], list[str]]:
    """The runs of both sides by seed, or one of each; and what a reader must know of them."""
    stored = {run.run_id: run for run in (*a, *b)}
    for run in stored.values():
        if run.refusal is not None:
            raise SpectraError(f"{run.run_id}: {run.refusal}")
    rows = collect(next(iter(stored.values())).path.parent, stored).by_run
    if missing := [run_id for run_id in stored if run_id not in rows]:
        raise SpectraError(f"{missing[0]}: its figures cannot be used")
    if len(a) == len(b) == 1:
        pairs = [(a[0], b[0])]
        for x, y in pairs:
            _refuse(_other(rows[x.run_id], rows[y.run_id]), x, y)
    else:
        sides = [_by_seed(name, [rows[run.run_id] for run in runs]) for name, runs in (("a", a), ("b", b))]
        if sides[0].keys() != sides[1].keys():
            odd = sorted(sides[0].keys() ^ sides[1].keys())
            raise ConfigError("runs", f"seed {odd[0]} is on one side alone", "give the same seeds on both sides")
        pairs = [(stored[sides[0][seed]], stored[sides[1][seed]]) for seed in sorted(sides[0])]
        for x, y in pairs:
            _refuse(pair_problem(rows[x.run_id], rows[y.run_id]), x, y)
    fair = all(rows[run_id]["causal"] for run_id in stored)
    return pairs, [] if fair else [NO_EVIDENCE]


def _by_seed(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    found = {row["seed"]: row["run_id"] for row in rows}
    if len(found) < len(rows) or len({row["cell_id"] for row in rows}) > 1:
        raise ConfigError(name, "its runs are not one configuration under several seeds", "give one run a seed")
    return found


def _other(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    return next((f"other {key.partition('_')[0]}" for key in SAME if a[key] != b[key]), None)


def _refuse(problem: str | None, a: StoredRun, b: StoredRun) -> None:
    if problem is not None:
        words = f"{a.run_id} and {b.run_id} may not be compared: {problem}"
        raise ConfigError("runs", words, "compare runs of one set-up")


def _documents(run: StoredRun) -> pd.DataFrame:
    found = run.scores("documents")
    if found is None:
        run.require(DOCUMENTS)
        raise SpectraError(f"{run.run_id}: it has no {DOCUMENTS}; spectra-exp rescore {run.run_id} makes it")
    return found.sort_values("id", ignore_index=True)


def _items(run: StoredRun) -> pd.DataFrame:
    """Sums of scores by group of items, which share a passage: `tokens` is how many items there are."""
    found = run.scores("items")
    if found is None:
        run.require(ITEMS)
        again = f"spectra-exp downstream run={run.run_id} force=true"
        raise SpectraError(f"{run.run_id}: it has no {ITEMS}; {again} makes it")
    grouped = found.groupby(["task", "group"], sort=True)["score"].agg(["sum", "size"]).reset_index()
    # The same items by other settings, such as other shots, are others.
    of_task = {name: str(sorted(entry["settings"].items())) for name, entry in run.summary["downstream"].items()}
    ids = [f"{task} {of_task[task]} {group}" for task, group in zip(grouped["task"], grouped["group"], strict=True)]
    columns = {"task": "domain", "sum": "score", "size": "tokens"}
    return grouped.rename(columns=columns).assign(id=ids).sort_values("id", ignore_index=True)


@dataclass(frozen=True)
class CompareOptions(SourceOptions):
    """Which runs are compared, and by what."""

    a: tuple[str, ...] = option((), "the run, or runs of several seeds with commas")
    b: tuple[str, ...] = option((), "the run or runs that a is compared with")
    metric: str = option("val_loss", "what is compared", choices=[*SUMS, DOWNSTREAM])
    margin: float | None = option(None, "differences below it are of no practical importance", minimum=0)


def _compare(options: CompareOptions) -> int:
    stored = read_sources(options.folder, options.runs).stored
    sides = []
    for key, names in (("a", options.a), ("b", options.b)):
        if not names:
            raise ConfigError(key, "is missing", f"give {key}=RUN, or runs of several seeds with commas")
        if unknown := [name for name in names if name not in stored]:
            raise ConfigError.unknown(key, unknown[0], stored)
        sides.append([stored[name] for name in names])
    print("\n".join(told(compare_by_document(*sides, options.metric, options.margin or None))))
    return DONE


def told(found: ByDocument) -> list[str]:
    """The comparison in lines for a reader."""
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    region = "" if found.margin is None else f"; within {found.margin:g} is negligible"
    lines = [f"{found.metric}, a - b, per token; about {found.claim} ({seeds}); 95 % intervals{region}"]
    for outcome in found.outcomes:
        low, high = outcome.estimate.interval()
        words = [f"{outcome.domain:<20} {outcome.estimate.difference:+.5f}"]
        words += [f"[{low:+.5f}, {high:+.5f}]", f"p {number_text(outcome.p_corrected)}"] if low is not None else []
        if outcome.chances is not None:
            parts = outcome.chances.below, outcome.chances.within, outcome.chances.above
            words.append("below, within, above " + ", ".join(f"{part:.3f}" for part in parts))
        words.append(outcome.verdict or outcome.estimate.note)
        lines.append("  ".join(words) + f"  ({outcome.documents} documents, {outcome.tokens} tokens)")
    if len(found.outcomes) > 1:
        lines.append("p of domains: corrected by Holm's method")
    if (parts := found.components) is not None and parts.text_share is not None:
        low, high = parts.seeds.interval()
        if low is not None:
            lines.append(f"for these documents alone, over seeds: [{low:+.5f}, {high:+.5f}]")
        lines.append(f"of the variance {100 * parts.text_share:.0f} % is of the text, the rest of seeds")
        if parts.enough_tokens is not None:
            words = f"text adds less than {100 * LITTLE:.0f} % to the variance of {found.seeds} seeds"
            lines.append(f"from {number_text(parts.enough_tokens)} evaluation tokens on {words}")
    return lines + found.notes


main = Verb(
    "compare",
    CompareOptions,
    _compare,
    "Two models, or two methods over seeds, by what each held-out document scored (documents.parquet).",
    ("a=RUN1 b=RUN2", "a=RUN1,RUN2,RUN3 b=RUN4,RUN5,RUN6 runs=runs.parquet"),
)
