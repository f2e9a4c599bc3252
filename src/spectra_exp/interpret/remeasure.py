"""Metrics that finished runs lack, such as one that is newer than they are, computed from what they kept.

python -m spectra_exp.interpret.remeasure run=ID|all [checkpoint=false] [device=cpu]
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_exp.config.compose import prepare_environment
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.foundations.files import write_json
from spectra_exp.measure.base import METRICS, MetricTable
from spectra_exp.measure.recompute import floors_of_counts, metrics_of_counts, stability_of_snapshots
from spectra_exp.runs.config_file import setting
from spectra_exp.runs.folder import find_run
from spectra_exp.runs.history import CHANCE, FINAL, VALIDATION, History
from spectra_exp.runs.provenance import code_version
from spectra_exp.runs.stored import StoredRun, stored_runs
from spectra_exp.runs.summary import change_summary, sealed

KEYS = {
    "run": "ids or folders of finished runs, separated by commas, or all",
    "checkpoint": "whether the model is loaded for what stored counts do not give (true)",
    "device": "cpu or cuda, for the model (cpu)",
}
# How many metrics a line names that have no value.
NAMED = 8
COUNTS, CHECKPOINT, UNDEFINED = "counts", "checkpoint", "undefined"
# Relative differences from a figure in the summary that are rounding: of counts, and of a model's float32.
CLOSE = {COUNTS: 1e-9, CHECKPOINT: 1e-4}


@dataclass
class Remeasured:
    """What came of one run. `added`: metric → counts or checkpoint; `lacking`: metric → why it has no value;
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
    if stored.refusal is not None:
        raise SpectraError(f"{stored.run_id}: {stored.refusal}")
    for name in ("routing", "history.parquet", "config.yaml"):
        _ = stored.examine()
        stored.require(name)
    result, summary = Remeasured(), stored.summary
    known = {n for n, v in summary["metrics"].items() if v is not None} | _undefined(summary)
    wanted = [name for name in METRICS if name not in known]
    sources = _of_counts(stored)
    if not sources and not stored.snapshots:
        result.lacking = dict.fromkeys(wanted, "the run kept no routing counts (a dense model has none)")
        return result
    given = {name for found in sources for name in found.table.by_layer()}
    if use_checkpoint and set(wanted) - given:
        try:
            sources.append(_of_checkpoint(stored, device))
        except SpectraError as error:
            result.lacking = dict.fromkeys(wanted, f"needs the model: {error}")
    elif not use_checkpoint:
        result.lacking = dict.fromkeys(wanted, "needs the model (checkpoint=true)")
    chosen: dict[str, Found] = {}
    for found in sources:
        for name, value in found.table.all().items():
            if name in wanted:
                chosen.setdefault(name, found)
            elif not math.isclose(
                summary["metrics"].get(name, value), value, rel_tol=CLOSE[found.source], abs_tol=1e-12
            ):
                result.different.setdefault(name, (summary["metrics"][name], value))
        undefined = set(found.table.by_layer()) - set(found.table.all())
        result.lacking |= dict.fromkeys(undefined & set(wanted), "not defined for this run")
    result.added = {name: found.source for name, found in chosen.items()}
    result.lacking = {name: why for name, why in result.lacking.items() if name not in chosen}
    _write(stored, chosen, [n for n, why in result.lacking.items() if why.startswith("not defined")])
    return result


def _undefined(summary: Mapping[str, Any]) -> set[str]:
    """The metrics that today's code has found undefined already."""
    kept = summary.get("remeasured") or {}
    return {n for n, of in kept.items() if of.get("from") == UNDEFINED and of.get("code") == code_version()}


def _of_counts(stored: StoredRun) -> list[Found]:
    """What the snapshots give. Those of a run whose end was scored on a larger set are not of that set."""
    from spectra_exp.training.fractions import fraction_steps

    steps, snapshots = stored.summary["steps"], stored.snapshots
    found = []
    if steps in snapshots and setting(stored.config or {}, "data.final_evaluation_tokens") is None:
        last = snapshots[steps]
        earlier = {(s.step, s.fraction): metrics_of_counts(s) for s in snapshots.values() if s is not last}
        found.append(Found(COUNTS, VALIDATION, metrics_of_counts(last), floors_of_counts(last), earlier))
    kept = [snapshots[step] for step in sorted(set(fraction_steps(steps))) if step in snapshots]
    table, floors = stability_of_snapshots(kept)
    return [*found, *([Found(COUNTS, VALIDATION, table, floors)] if len(table) else [])]


def _of_checkpoint(stored: StoredRun, device: str) -> Found:
    """What the newest checkpoint gives on the run's own evaluation set. SpectraError where there is none of its end."""
    import torch

    from spectra_exp.interpret.open_run import open_run
    from spectra_exp.measure.compute import compute_floors

    subject = open_run(stored.path, None, 0, torch.device(device))
    if subject.step != stored.summary["steps"]:
        raise SpectraError(f"the newest checkpoint left is that of step {subject.step}")
    evaluation = subject.run.evaluator.run(subject.engine.model)
    if evaluation.table is None:
        raise SpectraError("the model has no routed layer")
    split = VALIDATION if subject.run.corpus.final is None else FINAL
    return Found(CHECKPOINT, split, evaluation.table, compute_floors(evaluation.statistics))


def _write(stored: StoredRun, chosen: Mapping[str, Found], undefined: Sequence[str]) -> None:
    """The new figures into history and summary, in a folder that is held meanwhile."""
    if not chosen and not undefined:
        return
    folder, code = stored.folder, code_version()
    with folder.hold(timeout=60):
        summary = folder.read_summary()
        metrics, by_layer, floors = {}, {}, {}
        history = History.load(folder.history) if folder.history.exists() else None
        for name, found in chosen.items():
            by_layer[name], metrics[name] = found.table.by_layer()[name], found.table.all()[name]
            floor_rows = [row for row in found.floors.rows() if row["metric"] == METRICS[name].floor_name]
            floors |= {name: found.floors["all", METRICS[name].floor_name]} if floor_rows else {}
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
        if history is not None:
            history.save(folder.history)
        if summary.seal is None:
            change_summary(folder.summary, changes)
        else:
            # Its files were found as the run left them, so that the seal may be of the history as it is now.
            write_json(folder.summary, sealed(folder.path, summary | changes))


def told(run_id: str, result: Remeasured) -> list[str]:
    """What came of a run, in lines."""
    by_source = {s: [n for n, source in result.added.items() if source == s] for s in (COUNTS, CHECKPOINT)}
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
    return lines or [f"{run_id}: has every metric already"]


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """The options typed. Raises ConfigError for an unknown key or value."""
    options = {"checkpoint": "true", "device": "cpu"}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in KEYS or not equals:
            raise ConfigError.unknown("command line", key, KEYS)
        options[key] = value
    for key, values in (("checkpoint", ("true", "false")), ("device", ("cpu", "cuda"))):
        if options[key] not in values:
            raise ConfigError(key, f"is '{options[key]}'", f"give one of {', '.join(values)}")
    if not options.get("run"):
        raise ConfigError("run", "is missing", f"it is: {KEYS['run']}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every run named was looked at, 2 with a line on standard error for each that could not be."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"--help", "-h", "help"} & set(arguments):
        print(__doc__ + "\n" + "\n".join(f"  {key:<11} {meaning}" for key, meaning in KEYS.items()))
        return 0
    prepare_environment()
    status = 0
    try:
        options = parse(arguments)
        outputs = Path(os.environ["SPECTRA_OUTPUTS"])
        if options["run"] == "all":
            runs = [run for run in stored_runs(outputs / "runs") if run.path.is_dir()]
        else:
            runs = [StoredRun(find_run(name, outputs).path) for name in options["run"].split(",")]
    except SpectraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for run in runs:
        try:
            lines = told(run.run_id, remeasure(run, options["checkpoint"] == "true", options["device"]))
            print("\n".join(lines), flush=True)
        except SpectraError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())
