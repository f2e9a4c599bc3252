"""`spectra-exp compare`: runs compared by what each held-out document scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_exp.archive.sources import SourceOptions, read_sources
from spectra_exp.config.verb import Verb
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.presentation.text import number_text
from spectra_exp.reporting.collect import collect
from spectra_exp.reporting.tables.significance import NO_EVIDENCE
from spectra_exp.reporting.tables.verdicts import direction
from spectra_exp.reporting.tables.verdicts import margin as declared_margin
from spectra_exp.runs.pairing import pair_problem
from spectra_exp.runs.scores import DOCUMENTS, ITEMS
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.clustered import CLAIM as THESE_RUNS
from spectra_exp.statistics.clustered import ClusteredDifference, clustered_difference
from spectra_exp.statistics.corrections import holm
from spectra_exp.statistics.crossed import CLAIM as THESE_METHODS
from spectra_exp.statistics.crossed import WASTED, CrossedDifference, crossed_difference
from spectra_exp.statistics.practical import Region, equivalent_p, region_probabilities, word

if TYPE_CHECKING:
    import pandas as pd

# Metric: the column of the documents' scores that it is the mean per token of.
SUMS = {"val_loss": "loss", "val_accuracy": "correct"}
# The mean over items of each downstream task: items that share a passage are one document, tasks are domains.
DOWNSTREAM = "downstream"
ALL = "all"
# What runs must share for one to be compared with the other on the same documents.
SAME = ("data_fingerprint", "evaluation_fingerprint")
SET_UP = "compare runs of one set-up"


@dataclass(frozen=True)
class Outcome:
    """a − b per token on the documents of one domain, or of all.

    se, df, bounds at 95 %, p and the rest are None where there is no test, and `note` says why. p_corrected: by Holm
    over the domains, of all documents p itself.
    """

    domain: str
    documents: int
    tokens: int
    difference: float
    se: float | None
    df: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    note: str
    p_corrected: float | None = None
    region: Region | None = None
    verdict: str = ""


@dataclass(frozen=True)
class ByDocument:
    """A comparison document by document. `claim`: what its intervals are about, these runs or these methods.

    `outcomes`: of all documents first, then by domain; `crossed`: of all, where there are several seeds.
    """

    metric: str
    claim: str
    seeds: int
    margin: float | None
    outcomes: list[Outcome]
    crossed: CrossedDifference | None
    notes: list[str]


def compare_by_document(
    a: Sequence[StoredRun], b: Sequence[StoredRun], metric: str = "val_loss", margin: float | None = None
) -> ByDocument:
    """The difference a − b per token. One run each: about these models; several, paired by seed: about the methods.

    margin: half the region of practical equivalence, the declared one where it is None. Raises ConfigError for another
    metric and for runs that may not be compared, SpectraError for one without scores of its documents.
    """
    if metric not in (*SUMS, DOWNSTREAM):
        raise ConfigError.unknown("metric", metric, (*SUMS, DOWNSTREAM))
    pairs, notes = _pairs(a, b)
    read, column = (_items, "score") if metric == DOWNSTREAM else (_documents, SUMS[metric])
    margin = declared_margin(metric) if margin is None else margin
    tables = [tuple(read(run) for run in pair) for pair in pairs]
    first = tables[0][0]
    if first.empty:
        raise SpectraError(f"{pairs[0][0].run_id}: its {ITEMS if metric == DOWNSTREAM else DOCUMENTS} has no rows")
    for run, table in (one for pair, own in zip(pairs, tables, strict=True) for one in zip(pair, own, strict=True)):
        if not table[["id", "tokens"]].equals(first[["id", "tokens"]]):
            what = "items of tasks" if metric == DOWNSTREAM else "documents"
            raise ConfigError("runs", f"{run.run_id} was scored on other {what}", SET_UP)
    a_SG, b_SG = (np.array([pair[side][column].to_numpy(float) for pair in tables]) for side in (0, 1))
    tokens_G, domains_G = first["tokens"].to_numpy(float), first["domain"].to_numpy(str)
    domains = sorted(set(domains_G))
    names = domains if metric == DOWNSTREAM else [ALL, *(domains if len(domains) > 1 else [])]
    of = {name: np.full(len(first), True) if name == ALL else domains_G == name for name in names}
    found = {name: _outcome(name, a_SG[:, own], b_SG[:, own], tokens_G[own]) for name, own in of.items()}
    corrected = {name: outcome.p for name, outcome in found.items()}
    corrected |= holm({name: p for name, p in corrected.items() if name != ALL})
    several = len(pairs) > 1
    return ByDocument(
        metric,
        THESE_METHODS if several else THESE_RUNS,
        len(pairs),
        margin,
        [_judged(outcome, corrected[name], metric, margin) for name, outcome in found.items()],
        crossed_difference(a_SG - b_SG, tokens_G) if several and ALL in found and len(first) > 1 else None,
        notes,
    )


def _outcome(domain: str, a_SG: np.ndarray, b_SG: np.ndarray, tokens_G: np.ndarray) -> Outcome:
    d: ClusteredDifference | CrossedDifference
    if len(a_SG) > 1 and len(tokens_G) > 1:
        d = crossed_difference(a_SG - b_SG, tokens_G)
    else:
        d = clustered_difference(a_SG.mean(axis=0), b_SG.mean(axis=0), tokens_G)
    size = len(tokens_G), int(tokens_G.sum())
    return Outcome(domain, *size, d.difference, d.se, d.df, d.ci_low, d.ci_high, d.p, d.note)


def _judged(outcome: Outcome, corrected: float | None, metric: str, margin: float | None) -> Outcome:
    """The outcome with its corrected p, what speaks for a negligible difference, and its verdict in a word."""
    if outcome.se is None or outcome.df is None:
        return outcome
    seen = outcome.difference, outcome.se, outcome.df
    region = None if margin is None else region_probabilities(*seen, margin)
    equal = None if margin is None else equivalent_p(*seen, margin)
    said = word(outcome.difference, corrected, equal, direction(f"{metric}_" if metric == DOWNSTREAM else metric))
    return replace(outcome, p_corrected=corrected, region=region, verdict=said)


def _pairs(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> tuple[list[tuple[StoredRun, StoredRun]], list[str]]:
    """The runs of both sides by seed, or one of each; and what a reader must know of them."""
    stored = {run.run_id: run for run in (*a, *b)}
    for run in stored.values():
        if run.refusal is not None:
            raise SpectraError(f"{run.run_id}: {run.refusal}")
    rows = collect(next(iter(stored.values())).path.parent, stored).by_run
    if missing := [run_id for run_id in stored if run_id not in rows]:
        raise SpectraError(f"{missing[0]}: its figures cannot be used")
    problem_of: Callable[[dict[str, Any], dict[str, Any]], str | None] = pair_problem
    if len(a) == len(b) == 1:
        pairs, problem_of = [(a[0], b[0])], _other
    else:
        sides = [_by_seed(name, [rows[run.run_id] for run in runs]) for name, runs in (("a", a), ("b", b))]
        if sides[0].keys() != sides[1].keys():
            odd = sorted(sides[0].keys() ^ sides[1].keys())
            raise ConfigError("runs", f"seed {odd[0]} is on one side alone", "give the same seeds on both sides")
        pairs = [(stored[sides[0][seed]], stored[sides[1][seed]]) for seed in sorted(sides[0])]
    for x, y in pairs:
        if (problem := problem_of(rows[x.run_id], rows[y.run_id])) is not None:
            raise ConfigError("runs", f"{x.run_id} and {y.run_id} may not be compared: {problem}", SET_UP)
    fair = all(rows[run_id]["causal"] for run_id in stored)
    return pairs, [] if fair else [NO_EVIDENCE]


def _by_seed(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    found = {row["seed"]: row["run_id"] for row in rows}
    if len(found) < len(rows) or len({row["cell_id"] for row in rows}) > 1:
        raise ConfigError(name, "its runs are not one configuration under several seeds", "give one run a seed")
    return found


def _other(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    return next((f"other {key.partition('_')[0]}" for key in SAME if a[key] != b[key]), None)


def _documents(run: StoredRun) -> pd.DataFrame:
    found = run.scores("documents")
    if found is None:
        run.require(DOCUMENTS)
        raise SpectraError(f"{run.run_id}: it has no {DOCUMENTS}; spectra-exp rescore {run.run_id} makes it")
    return found.astype({"id": "int64", "tokens": "int64"}).sort_values("id", ignore_index=True)


def _items(run: StoredRun) -> pd.DataFrame:
    """Sums of scores by group of items, which share a passage: `tokens` is how many items there are."""
    found = run.scores("items")
    if found is None:
        run.require(ITEMS)
        again = f"spectra-exp downstream run={run.run_id} force=true"
        raise SpectraError(f"{run.run_id}: it has no {ITEMS}; {again} makes it")
    grouped = found.groupby(["task", "group"], sort=True)["score"].agg(["sum", "size"]).reset_index()
    # The same items by other settings, such as other shots, are others.
    tasks = run.required_summary["downstream"]
    of_task = {name: str(sorted(entry["settings"].items())) for name, entry in tasks.items()}
    ids = [f"{task} {of_task[task]} {group}" for task, group in zip(grouped["task"], grouped["group"], strict=True)]
    columns = {"task": "domain", "sum": "score", "size": "tokens"}
    return grouped.rename(columns=columns).assign(id=ids).sort_values("id", ignore_index=True)


@dataclass(frozen=True)
class CompareOptions(SourceOptions):
    """Which runs are compared, and by what."""

    a: tuple[str, ...] = option((), "the run, or runs of several seeds with commas")
    b: tuple[str, ...] = option((), "the run or runs that a is compared with")
    metric: str = option("val_loss", "what is compared", choices=[*SUMS, DOWNSTREAM])
    margin: float | None = option(None, "differences below it are of no practical importance", above=0)


def _compare(options: CompareOptions) -> int:
    stored = read_sources(options.folder, options.runs).stored
    sides = []
    for key, names in (("a", options.a), ("b", options.b)):
        if not names:
            raise ConfigError(key, "is missing", f"give {key}=RUN, or runs of several seeds with commas")
        ConfigError.refuse_unknown(key, names, stored)
        sides.append([stored[name] for name in names])
    a, b = sides
    print("\n".join(told(compare_by_document(a, b, options.metric, options.margin))))
    return DONE


def told(found: ByDocument) -> list[str]:
    """The comparison in lines for a reader."""
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    near = None if found.margin is None else f"{found.margin:g}"
    region = f"; within {near} is negligible, P: that a - b is below -{near}, within, above {near}" if near else ""
    whole, unit = ("groups", "item") if found.metric == DOWNSTREAM else ("documents", "token")
    lines = [f"{found.metric}, a - b, per {unit}; about {found.claim} ({seeds}); 95 % intervals{region}"]
    for outcome in found.outcomes:
        words = [f"{outcome.domain:<20} {outcome.difference:+.5f}"]
        if outcome.p_corrected is not None:
            words.append(f"[{outcome.ci_low:+.5f}, {outcome.ci_high:+.5f}]  p {number_text(outcome.p_corrected)}")
        if (where := outcome.region) is not None:
            words.append(f"P {where.below:.3f}, {where.within:.3f}, {where.above:.3f}")
        words += [word for word in (outcome.verdict, outcome.note) if word]
        lines.append("  ".join(words) + f"  ({outcome.documents} {whole}, {outcome.tokens} {unit}s)")
    if len(found.outcomes) > 1:
        lines.append(f"p of {'tasks' if found.metric == DOWNSTREAM else 'domains'}: corrected by Holm's method")
    if (crossed := found.crossed) is not None and crossed.share_text is not None:
        lines.append(f"for these documents alone, over seeds: [{crossed.seed_low:+.5f}, {crossed.seed_high:+.5f}]")
        lines.append(f"of the variance {100 * crossed.share_text:.0f} % is of the text, the rest of seeds")
        if crossed.enough_tokens is not None:
            wasted = f"more text narrows the interval by less than {100 * WASTED:.0f} %"
            lines.append(f"from {number_text(crossed.enough_tokens)} evaluation tokens on {wasted}")
    return lines + found.notes


main = Verb(
    "compare",
    CompareOptions,
    _compare,
    "Two models, or two methods over seeds, by what each held-out document scored (documents.parquet).",
    ("a=RUN1 b=RUN2", "a=RUN1,RUN2,RUN3 b=RUN4,RUN5,RUN6 runs=runs.parquet"),
)
