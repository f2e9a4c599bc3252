"""`spectra-exp study plan`: how many seeds a study needs to find a difference, in words and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from spectra_exp.archive.sources import SourceOptions
from spectra_exp.config.verb import Verb, dispatch
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.files import one_line_errors
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE
from spectra_exp.presentation.text import number_text, print_table
from spectra_exp.reporting.seed_plan import PlannedComparison, SeedPlan, Seeds, seed_plan
from spectra_exp.statistics.crossed import WASTED
from spectra_exp.studies import listing
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.view import duration


@dataclass(frozen=True)
class PlanOptions(SourceOptions):
    """Which study, sliced and changed as for a launch, and what it is to find."""

    study: str | None = option(None, "its name, such as core")
    metric: str = option("val_loss", "the figure whose difference is to be found")
    detect: float | None = option(
        None, "the smallest difference from the reference that is to be found; the metric's region unless set", above=0
    )
    power: float = option(0.8, "chance to find it", minimum=0.5, maximum=0.999)
    json: bool = option(False, "for other programs")
    overrides: tuple[str, ...] = ()


def told(plan: SeedPlan) -> list[str]:
    """What stands around the table of comparisons, in lines for a reader."""
    spread, several = plan.spread, f"{plan.tests} comparisons at once (Holm's strictest level)"
    return [
        f"{plan.study}: {plan.metric}, a difference of {plan.detect:g} found with power {plan.power:g} (paired t test)",
        f"spread of a pair by {plan.source}: {number_text(spread.sd)}, at most {number_text(spread.upper)} "
        f"(95 % limit, {spread.df} degrees of freedom)",
        f"one comparison at 0.05: {_seeds_text(plan.seeds)}",
        *([f"{several}: {_seeds_text(plan.corrected)}"] if plan.tests > 1 else []),
        _time_text(plan),
        _tokens_text(plan),
    ]


def _seeds_text(seeds: Seeds) -> str:
    return f"{_number(seeds.seen)} seeds, {_number(seeds.upper)} at the limit of the spread"


def _number(seeds: int | None) -> str:
    return "too many" if seeds is None else str(seeds)


def _time_text(plan: SeedPlan) -> str:
    if plan.seconds is None or plan.seconds_left is None or plan.seeds.seen is None:
        return f"{plan.runs} runs a seed; time unknown: no run like some of these has finished"
    runs, whole = plan.runs * plan.seeds.seen, duration(plan.seconds * plan.seeds.seen)
    upper = "" if plan.seeds.upper is None else f" ({duration(plan.seconds * plan.seeds.upper)} at the limit)"
    return f"{plan.runs} runs a seed, {runs} in all: {whole}{upper} one at a time; left {duration(plan.seconds_left)}"


def _tokens_text(plan: SeedPlan) -> str:
    known = [one.enough_tokens for one in plan.comparisons if one.enough_tokens is not None]
    if not known:
        notes = [one.note for one in plan.comparisons]
        return f"evaluation tokens unknown: {notes[0] if notes else 'no finished pair of these settings'}"
    seen = {number_text(one.tokens) for one in plan.comparisons if one.tokens is not None}
    return (
        f"evaluation: {number_text(max(known))} tokens are enough "
        f"(more narrow an interval by less than {100 * WASTED:.0f} %); "
        f"the runs have {' or '.join(sorted(seen))}"
    )


HEADERS = ("comparison", "pairs", "spread", "at most", "seeds", "at the limit", "enough tokens")


def _row(one: PlannedComparison) -> list[str]:
    cells = [number_text(one.spread.sd), number_text(one.spread.upper)]
    seeds = ["" if one.spread.sd is None else _number(n) for n in (one.seeds.seen, one.seeds.upper)]
    return [one.label, str(one.pairs), *cells, *seeds, number_text(one.enough_tokens)]


def _plan(options: PlanOptions) -> int:
    if options.study is None:
        raise ConfigError("study", "is missing", "`spectra-exp study list` names them")
    study = load_study(options.study)
    asked = options.overrides, options.folder, options.runs
    with one_line_errors(options.folder):
        plan = seed_plan(study, options.detect, options.metric, options.power, *asked)
    if options.json:
        print(json.dumps(asdict(plan), indent=1))
        return DONE
    if plan.comparisons:
        print_table("", HEADERS, [_row(one) for one in plan.comparisons])
    print("\n".join(told(plan)))
    return DONE


PLAN = Verb(
    "study plan",
    PlanOptions,
    _plan,
    "How many seeds find a difference, from the spread of finished pairs or of reference results: seeds, hours, text.",
    ("core metric=val_loss detect=0.02 power=0.8", "core osr=causal detect=0.02", "core runs=runs.parquet json=true"),
    bare=("study",),
)


COMMANDS = {**listing.COMMANDS, "plan": PLAN}


def main(words: Sequence[str]) -> int:
    """The exit status of the command of `spectra-exp study` that the first word names."""
    return dispatch("study", COMMANDS, words)
