"""`spectra-exp remeasure`: metrics that finished runs lack, such as one newer than they are, from what they kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spectra_exp.config.verb import Verb, VerbOptions
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.options import option
from spectra_exp.foundations.shell import DONE, FAILED
from spectra_exp.measure.base import METRICS, MetricTable
from spectra_exp.measure.compute import compute_floors, compute_swing, compute_swing_floors
from spectra_exp.measure.recompute import floors_of_counts, metrics_of_counts, stability_of_snapshots
from spectra_exp.measure.swing import layer_trainings
from spectra_exp.runs.config_file import setting
from spectra_exp.runs.folder import find_run
from spectra_exp.runs.history import CHANCE, FINAL, TRAIN, VALIDATION, History
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.stored import StoredRun, stored_runs
from spectra_exp.runs.summary import Summary, change_summary, change_with_file

if TYPE_CHECKING:
    from spectra_exp.interpret.subject import Run
    from spectra_exp.training.evaluation import Evaluation

# How many metrics a line names that have no value.
NAMED = 8
COUNTS, HISTORY, CHECKPOINT, UNDEFINED = "counts", "history", "checkpoint", "undefined"
# Why a metric has no value; by reduction, where no model gives it.
OF_MODEL = "needs the model (checkpoint=true)"
NOT_DEFINED = "not defined for this run"
OF_TRAINING = {
    "fractions": "needs routing snapshots of two fractions of training, which the run did not keep",
    "steps": "needs the routing of logged training steps, which the run's history lacks",
}
# Relative differences from a figure in the summary that are rounding: of what is stored, and of a model in float32.
CLOSE = {COUNTS: 1e-9, HISTORY: 1e-9, CHECKPOINT: 1e-4}


@dataclass
class Remeasured:
    """What came of one run. `added`: metric → counts, history or checkpoint; `lacking`: metric → why it has no value;
    `different`: metric → (in the summary, computed now), which are left as they are."""

    added: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    different: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Metrics and floors by layer at the end of a run, from one source.

    `split`: that of the history which they belong to; `earlier`: the same at earlier steps, by (step, fraction).
    """

    source: str
    split: str
    table: MetricTable
    floors: MetricTable
    earlier: Mapping[tuple[int, float], MetricTable] = field(default_factory=dict)


def remeasure(stored: StoredRun, use_checkpoint: bool = True, device: str = "cpu") -> Remeasured:
    """Add to a finished run's summary and history the metrics that it lacks; no figure that is there changes.

    Raises SpectraError for a run whose figures do not count (edited, unfinished, contradicting itself).
    """
    summary = require_sound(stored)
    stored.examine()
    for name in ("routing", "history.parquet", "config.yaml"):
        stored.require(name)
    result = Remeasured()
    known = {n for n, v in summary["metrics"].items() if v is not None} | _undefined(summary)
    wanted = [name for name in METRICS if name not in known]
    sources = _of_counts(stored, summary["steps"])
    if not sources and not stored.snapshots:
        result.lacking = dict.fromkeys(wanted, "the run kept no routing counts (a dense model has none)")
        return result
    sources += _of_history(stored, summary["steps"])
    given = {name for found in sources for name in found.table.by_layer()}
    for name in (n for n in wanted if n not in given):
        why = NOT_DEFINED if name in _undefined_then(summary) else OF_MODEL
        result.lacking[name] = OF_TRAINING.get(METRICS[name].reduction, why)
    # What was not defined by other code's measure may be by today's.
    if use_checkpoint and {OF_MODEL, NOT_DEFINED} & set(result.lacking.values()):
        try:
            sources.append(_of_checkpoint(stored, summary["steps"], device))
        except SpectraError as error:
            reasons = {OF_MODEL: f"needs the model: {error}"}
            result.lacking = {name: reasons.get(reason, reason) for name, reason in result.lacking.items()}
    chosen: dict[str, Found] = {}
    undefined: set[str] = set()
    for found in sources:
        for name, value in found.table.all().items():
            if name in wanted:
                chosen.setdefault(name, found)
            elif not math.isclose(
                summary["metrics"].get(name, value), value, rel_tol=CLOSE[found.source], abs_tol=1e-12
            ):
                result.different.setdefault(name, (summary["metrics"][name], value))
        undefined |= (set(found.table.by_layer()) - set(found.table.all())) & set(wanted)
    result.lacking |= dict.fromkeys((name for name in wanted if name in undefined), NOT_DEFINED)
    result.added = {name: found.source for name, found in chosen.items()}
    result.lacking = {name: why for name, why in result.lacking.items() if name not in chosen}
    _write(stored, chosen, [name for name in result.lacking if name in undefined])
    return result


def require_sound(stored: StoredRun) -> Summary:
    if stored.refusal is not None or stored.summary is None:
        raise SpectraError(f"{stored.run_id}: {stored.refusal}")
    return stored.summary


def _undefined(summary: Mapping[str, Any]) -> set[str]:
    """The metrics that today's code has found undefined already, in the run itself or later."""
    kept, code = summary.get("remeasured") or {}, code_version()
    later = {n for n, of in kept.items() if of.get("from") == UNDEFINED and of.get("code") == code}
    return later | (_undefined_then(summary) if summary["fingerprints"].get("code") == code else set())


def _undefined_then(summary: Mapping[str, Any]) -> set[str]:
    """The metrics that the run itself measured and found defined in no layer."""
    by_layer = summary.get("metrics_by_layer") or {}
    return {name for name, values in by_layer.items() if values and all(value is None for value in values)}


def _of_counts(stored: StoredRun, steps: int) -> list[Found]:
    """What the snapshots give. Those of a run whose end was scored on a larger set are not of that set."""
    from spectra_exp.training.fractions import fraction_steps

    snapshots = stored.snapshots
    found = []
    if steps in snapshots and setting(stored.config or {}, "data.final_evaluation_tokens") is None:
        last = snapshots[steps]
        earlier = {(s.step, s.fraction): metrics_of_counts(s) for s in snapshots.values() if s is not last}
        found.append(Found(COUNTS, VALIDATION, metrics_of_counts(last), floors_of_counts(last), earlier))
    kept = [snapshots[step] for step in sorted(set(fraction_steps(steps))) if step in snapshots]
    table, floors = stability_of_snapshots(kept)
    return [*found, *([Found(COUNTS, VALIDATION, table, floors)] if len(table) else [])]


def _of_history(stored: StoredRun, steps: int) -> list[Found]:
    """What the logged steps of training give."""
    config, experts, top_k = stored.config or {}, stored.sizes.experts, stored.sizes.top_k
    empty = setting(config, "model.null_experts") or 0
    factors = [setting(config, f"trainer.{key}") for key in ("batch_size", "accumulation")]
    factors.append(setting(config, "data.sequence_length"))
    if stored.history is None or experts is None or top_k is None or None in factors:
        return []
    trainings = layer_trainings(stored.history, steps, experts - empty, top_k, math.prod(factors))
    return [Found(HISTORY, TRAIN, compute_swing(trainings), compute_swing_floors(trainings))] if trainings else []


def _of_checkpoint(stored: StoredRun, steps: int, device: str) -> Found:
    """What the newest checkpoint gives on the run's own evaluation set. SpectraError where there is none of its end."""
    run, evaluation = evaluated_again(stored, steps, device)
    if evaluation.table is None:
        raise SpectraError("the model has no routed layer")
    split = VALIDATION if run.corpus.final is None else FINAL
    return Found(CHECKPOINT, split, evaluation.table, compute_floors(evaluation.statistics))


def evaluated_again(stored: StoredRun, steps: int, device: str) -> tuple[Run, Evaluation]:
    """The final evaluation made again with the newest checkpoint. SpectraError where there is none of the run's end."""
    from spectra_exp.interpret.open_run import open_run
    from spectra_exp.runs.limits import chosen_device

    subject = open_run(stored.path, None, 0, chosen_device(device))
    if subject.step != steps:
        raise SpectraError(f"{stored.run_id}: the newest checkpoint left is that of step {subject.step}")
    run = subject.own_run
    return run, run.evaluator.run(run.model)


def _write(stored: StoredRun, chosen: Mapping[str, Found], undefined: Sequence[str]) -> None:
    """The new figures into history and summary, in a folder that is held meanwhile."""
    if not chosen and not undefined:
        return
    folder, code = stored.folder, code_version()
    with folder.hold(timeout=60):
        # The same once more, now that nobody else writes.
        require_sound(StoredRun(folder.path))
        summary = folder.read_summary()
        metrics, by_layer = {}, {}
        floors: dict[str, float] = {}
        history = History.load(folder.history) if folder.history.exists() else None
        for name, found in chosen.items():
            by_layer[name], metrics[name] = found.table.by_layer()[name], found.table.all()[name]
            floor_name = METRICS[name].floor_name
            floor_rows = [row for row in found.floors.rows() if row["metric"] == floor_name]
            if floor_name is not None and floor_rows:
                floors[name] = found.floors["all", floor_name]
            if history is not None:
                for (step, fraction), table in {(summary["steps"], 1.0): found.table, **found.earlier}.items():
                    rows = [row for row in table.rows() if row["metric"] == name]
                    history.add(step, fraction, found.split, rows)
                history.add(summary["steps"], 1.0, CHANCE, floor_rows)
        sources = {n: found.source for n, found in chosen.items()} | dict.fromkeys(undefined, UNDEFINED)
        changes = {
            "metrics": summary["metrics"] | metrics,
            "metrics_by_layer": (summary.get("metrics_by_layer") or {}) | by_layer,
            "floors": summary["floors"] | floors,
            "remeasured": (summary.get("remeasured") or {})
            | {n: {"from": s, "code": code} for n, s in sources.items()},
        }
        if history is None:
            change_summary(folder.summary, changes)
        else:
            change_with_file(folder.summary, folder.history, history.write, changes)


def told(run_id: str, result: Remeasured) -> list[str]:
    """What came of a run, in lines."""
    by_source = {s: [n for n, source in result.added.items() if source == s] for s in (COUNTS, HISTORY, CHECKPOINT)}
    lines = [f"{run_id}: {len(names)} from its {s}: {', '.join(names)}" for s, names in by_source.items() if names]
    reasons: dict[str, list[str]] = {}
    for name, reason in result.lacking.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append(f"{run_id}: not {', '.join(names[:NAMED])}{more}: {reason}")
    lines += [
        f"{run_id}: {name} is {was:.6g} in its summary and {now:.6g} now; left as it is"
        for name, (was, now) in result.different.items()
    ]
    return lines or [f"{run_id}: has every metric that is defined for it"]


@dataclass(frozen=True)
class RunsOptions(VerbOptions):
    """Finished runs whose model may be needed."""

    run: tuple[str, ...] = option((), "ids or folders of finished runs, separated by commas, or all")
    device: str = option("cpu", "where the model runs", choices=["cpu", "cuda"])


@dataclass(frozen=True)
class RemeasureOptions(RunsOptions):
    """Which runs are measured again, and with what."""

    checkpoint: bool = option(True, "whether the model is loaded for what stored counts do not give")


def each_run(options: RunsOptions, work: Callable[[StoredRun], Sequence[str]]) -> int:
    """Print the lines that `work` gives of each run named; 1 with a line on standard error for each that it raises
    SpectraError of, else 0."""
    if not options.run:
        raise ConfigError("run", "is missing", "give run=ID, several with commas, or run=all")
    if options.run == ("all",):
        runs = [run for run in stored_runs(options.folder / "runs") if run.path.is_dir()]
    else:
        runs = [StoredRun(find_run(name, options.folder).path) for name in options.run]
    status = DONE
    for run in runs:
        try:
            print("\n".join(work(run)), flush=True)
        except SpectraError as error:
            print(f"error: {error}", file=sys.stderr)
            status = FAILED
    return status


main = Verb(
    "remeasure",
    RemeasureOptions,
    lambda options: each_run(options, lambda run: told(run.run_id, remeasure(run, options.checkpoint, options.device))),
    "Metrics that finished runs lack, from their stored counts or their newest checkpoint; no figure changes.",
    ("run=all", "run=ID1,ID2 checkpoint=false"),
)
