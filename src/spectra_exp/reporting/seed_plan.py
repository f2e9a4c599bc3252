"""How many seeds a study needs to find a difference, by the spread of finished pairs; and the hours, and the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_exp.config.compose import load_experiment
from spectra_exp.config.resolved import Compositions, resolved_experiment
from spectra_exp.config.schema import Experiment
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.reporting.by_document import SUMS, compare_by_document
from spectra_exp.reporting.declared import all_contrasts, choice
from spectra_exp.reporting.grid import Row, Section
from spectra_exp.reporting.material import Material, gather
from spectra_exp.reporting.paper.publish import ARCHIVE, results_folder
from spectra_exp.reporting.tables.significance import contrasted
from spectra_exp.reporting.tables.verdicts import margin
from spectra_exp.runs.pairing import is_prediction
from spectra_exp.statistics.clustered import ONE_CLUSTER
from spectra_exp.statistics.comparison import difference_of
from spectra_exp.statistics.intervals import ALPHA
from spectra_exp.statistics.power import Spread, seeds_needed, spread_of
from spectra_exp.studies.cells import StudyCells, has_values, reference_of
from spectra_exp.studies.definition import Study
from spectra_exp.studies.expand import file_seeds, study_jobs
from spectra_exp.studies.state import expected_seconds, speeds_of

# Why no number of tokens is enough.
TEXT_ALONE = "seeds show no variance of their own beside the text's"


@dataclass(frozen=True)
class Pairs:
    """Two rows of one section, and their differences at the seeds that both have."""

    section: Section
    a: Row
    b: Row
    differences: tuple[float, ...]
    scale: float


@dataclass(frozen=True)
class Seeds:
    """How many seeds find the difference: at the spread that was seen, and at its upper limit; None for too many."""

    seen: int | None
    upper: int | None


@dataclass(frozen=True)
class PlannedComparison:
    """One comparison with finished pairs.

    `tokens`: of its evaluation; `enough_tokens`: after which more are wasted, as `crossed.CrossedDifference` has it;
    `note`: why that is not known.
    """

    label: str
    pairs: int
    spread: Spread
    seeds: Seeds
    tokens: float | None
    enough_tokens: float | None
    note: str


@dataclass(frozen=True)
class SeedPlan:
    """What finding a difference of `detect` with `power` takes.

    `source`: which pairs the spread is of; `spread`: of all `comparisons` together; `seeds`: at 0.05 for one
    comparison; `corrected`: at Holm's strictest level, for `tests` comparisons. `runs`: distinct ones a seed;
    `seconds`: of one seed of all of them, None where a speed is not known; `seconds_left`: of those still to be made
    for `seeds.seen`.
    """

    study: str
    metric: str
    detect: float
    power: float
    source: str
    spread: Spread
    seeds: Seeds
    tests: int
    corrected: Seeds
    comparisons: tuple[PlannedComparison, ...]
    runs: int
    seconds: float | None
    seconds_left: float | None


class AskedCells:
    """The distinct runs that a seed of what was asked for has, and where each stands in the study."""

    def __init__(self, study: Study, typed: Sequence[str], outputs: Path, compositions: Compositions):
        cells = StudyCells(study, compositions)
        self.experiments: dict[str, Experiment] = {}
        self.places: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], str] = {}
        seedless = [word for word in typed if not word.startswith("seed=")]
        for line in study_jobs(study, [*seedless, f"seed={file_seeds(study)[0]}", f"outputs={outputs}"]):
            experiment = load_experiment(line)
            resolved = resolved_experiment(experiment)
            self.experiments.setdefault(resolved.signature, experiment)
            for place in cells.places(resolved):
                key = tuple(Row(dict(place.key), "").key.items())
                self.places[place.context, key] = resolved.signature

    def has(self, section: Section, row: Row) -> bool:
        """Whether the row was asked for."""
        return (section.context, tuple(row.key.items())) in self.places

    def tests(self, study: Study) -> int:
        """How many comparisons the rows make: with the reference, or of neighbours where there is none."""
        wanted = choice(study.reference)
        references = {cell for (_, key), cell in self.places.items() if wanted and has_values(dict(key), wanted)}
        return max(1, len(self.experiments) - (len(references) or 1))


def seed_plan(
    study: Study,
    detect: float | None = None,
    metric: str = "val_loss",
    power: float = 0.8,
    typed: Sequence[str] = (),
    outputs: Path = Path("outputs"),
    runs: Sequence[str] = (),
) -> SeedPlan:
    """How many seeds find a difference of `detect` from the study's reference row.

    The spread is that of the study's finished pairs; of other ones, which is said, where it has none of these settings
    yet. Raises ConfigError for a metric that no run has, SpectraError where there is no pair to go by.
    """
    material = gather(outputs, None, runs)
    asked = AskedCells(study, typed, outputs, material.compositions)
    measured = set(material.collected.values["metric"])
    if measured and metric not in measured:
        raise ConfigError.unknown("metric", metric, measured)
    detect = margin(metric) if detect is None else detect
    if detect is None:
        fix = f"{metric} declares no region of practical equivalence: give detect=X"
        raise ConfigError("detect", "is missing", fix)
    sections, _ = material.sections_of(study)
    archive = reference_archive()
    reference = gather(outputs, None, [str(archive)]) if archive.is_file() and not runs else None
    source, found, spread = _spread(study, asked, sections, material, reference, metric)
    material.compositions.save()
    tests = asked.tests(study)
    seeds = _seeds(detect, spread, power)
    times = _times(asked, sections, material)
    return SeedPlan(
        study.name,
        metric,
        detect,
        power,
        source,
        spread,
        seeds,
        tests,
        _seeds(detect, spread, power, ALPHA / tests),
        tuple(_planned(pairs, metric, detect, power) for pairs in found),
        len(asked.experiments),
        None if times is None else sum(seconds for seconds, _ in times),
        None if times is None or seeds.seen is None else sum(s * max(0, seeds.seen - done) for s, done in times),
    )


def _seeds(detect: float, spread: Spread, power: float, alpha: float = ALPHA) -> Seeds:
    if spread.sd is None or spread.upper is None:
        return Seeds(None, None)
    return Seeds(*(seeds_needed(detect, sd, power, alpha) for sd in (spread.sd, spread.upper)))


def reference_archive() -> Path:
    """Where the reference results of the checkout lie, once there are any."""
    return results_folder() / ARCHIVE


def _spread(
    study: Study,
    asked: AskedCells,
    sections: Sequence[Section],
    material: Material,
    reference: Material | None,
    metric: str,
) -> tuple[str, list[Pairs], Spread]:
    """Where the spread is from, in words, the study's own pairs, and their spread."""
    own = [s for s in sections if any(context == s.context for context, _ in asked.places)]
    others = [s for s in sections if s not in own]
    found = [pairs for pairs in _pairs(study, own, metric) if asked.has(pairs.section, pairs.a)]
    theirs = () if reference is None else _pairs(study, reference.sections_of(study)[0], metric)
    tried: dict[str, Iterable[Pairs]] = {
        "its finished pairs": found,
        "its finished pairs of other settings": _pairs(study, others, metric),
        "the reference results' pairs of it": theirs,
        "pairs of other studies": _elsewhere(material, metric),
        "the reference results' pairs of other studies": () if reference is None else _elsewhere(reference, metric),
    }
    for source, candidates in tried.items():
        pairs = [one for one in candidates if len(one.differences) > 1]
        if not pairs:
            continue
        spread = spread_of([one.differences for one in pairs], max(one.scale for one in pairs))
        if spread.sd is None:
            raise SpectraError(f"{study.name}: {source} have no spread in {metric} ({spread.note})")
        return source, pairs if candidates is found else [], spread
    none = "" if reference else ", and there are no reference results"
    fix = "name an archive with runs=FILE, or launch two seeds"
    raise SpectraError(f"{material.sources.where}: no two seeds of a pair of rows have finished{none}; {fix}")


def _elsewhere(material: Material, metric: str) -> Iterator[Pairs]:
    """The pairs of every study that a run was made for."""
    launched = {name for run in material.collected.by_run.values() for name in run["studies"]}
    for name in sorted(launched & material.studies.keys()):
        sections, _ = material.sections_of(material.studies[name])
        yield from _pairs(material.studies[name], sections, metric)


def _pairs(study: Study, sections: Iterable[Section], metric: str) -> Iterator[Pairs]:
    """Each comparison of the study's rows with the reference, or without one each that table 13 makes."""
    for section in sections:
        if section.choosing:
            continue
        for a, b in _compared(study, section):
            evidence = not is_prediction(metric) or (section.causal(a) and section.causal(b))
            if evidence and not section.pair_problem(a, b):
                difference = difference_of(section.values(a, metric), section.values(b, metric))
                yield Pairs(section, a, b, tuple(difference.differences.tolist()), difference.scale)


def _compared(study: Study, section: Section) -> Iterator[tuple[Row, Row]]:
    if study.reference:
        wanted = choice(study.reference)
        rows = ((row, reference_of(row, section.rows, wanted)) for row in section.rows)
        yield from ((row, reference) for row, reference in rows if reference is not None)
        return
    for contrast in all_contrasts([study]):
        yield from contrasted(contrast, section)


def _planned(pairs: Pairs, metric: str, detect: float, power: float) -> PlannedComparison:
    spread = spread_of([pairs.differences], pairs.scale)
    label, count = f"{pairs.a.label} − {pairs.b.label}", len(pairs.differences)
    return PlannedComparison(label, count, spread, _seeds(detect, spread, power), *_evaluation(pairs, metric))


def _evaluation(pairs: Pairs, metric: str) -> tuple[float | None, float | None, str]:
    """The tokens of the evaluation, those after which more are wasted, and why one is not known."""
    if metric not in SUMS:
        return None, None, f"{metric} is no mean over documents"
    seeds = sorted(pairs.a.runs.keys() & pairs.b.runs.keys())
    a, b = ([pairs.section.stored(row)[seed] for seed in seeds] for row in (pairs.a, pairs.b))
    try:
        crossed = compare_by_document(a, b, metric).crossed
    except SpectraError as error:
        return None, None, str(error)
    if crossed is None:
        return None, None, ONE_CLUSTER
    return crossed.tokens, crossed.enough_tokens, "" if crossed.enough_tokens else TEXT_ALONE


def _times(asked: AskedCells, sections: Sequence[Section], material: Material) -> list[tuple[float, int]] | None:
    """For each distinct run of a seed the seconds that it takes, and how many seeds of it have finished.

    None where nothing like one of them has run.
    """
    speeds = speeds_of(material.sources.stored.values())
    done: dict[str, Row] = {}
    for section in sections:
        for row in section.rows:
            if asked.has(section, row):
                done[asked.places[section.context, tuple(row.key.items())]] = row
    found = []
    for signature, experiment in asked.experiments.items():
        runs = done[signature].runs if signature in done else {}
        cells = {material.collected.by_run[run]["cell_id"] for run in runs.values()}
        seconds = expected_seconds(speeds, cells.pop() if cells else None, experiment)
        if seconds is None:
            return None
        found.append((seconds, len(runs)))
    return found
