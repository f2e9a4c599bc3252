"""Runs of an archive made again from their configurations, and their digits compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spectra_exp.archive.content import ArchivedRun, history_tree
from spectra_exp.archive.file import Archive
from spectra_exp.config.compose import load_experiment
from spectra_exp.config.resolved import Compositions, beside, line_of, resolved_config
from spectra_exp.config.tree import train_words
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.routing.temperature import BEST_LONG
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.plan import plan
from spectra_exp.runs.stored import StoredRun
from spectra_exp.studies.work import run_here

# The data that every checkout has.
EVERYWHERE = "embedded"
# What of a summary a second run of the same code on the same kind of processor repeats to the last digit.
DIGITS = ("metrics", "metrics_by_layer", "metrics_training_rule", "metrics_by_inference", "floors", "initial_weights")


def drawn(archive: Archive, cells: int, seed: int | None) -> list[str]:
    """So many completed runs of different cells that need nothing but a checkout, drawn at random.

    Raises ConfigError where there are fewer.
    """
    by_cell: dict[str, list[str]] = {}
    for run_id, run in archive.runs().items():
        summary = run.summary if run.refusal is None else None
        if summary is not None and summary["data"] == EVERYWHERE and summary["temperature"] != BEST_LONG:
            by_cell.setdefault(summary["cell_id"], []).append(run_id)
    if cells > len(by_cell):
        raise ConfigError("cells", f"{cells} were asked for, and {len(by_cell)} are of embedded data", "give fewer")
    dice = random.Random(seed)
    return [dice.choice(by_cell[cell]) for cell in dice.sample(sorted(by_cell), cells)]


def configuration_line(run: ArchivedRun) -> list[str]:
    """The overrides that make the run's configuration today."""
    if run.config is None:
        raise SpectraError(f"{run.run_id}: {run.problems[run.folder.config]}")
    resolved = resolved_config(run.config)
    return [*line_of(beside({}, resolved, Compositions())), f"seed={run.config['seed']}"]


def repeat(run: ArchivedRun, outputs: Path, say: Callable[[str], None]) -> list[str]:
    """The figures that are others, `name: then, now`, once the run is made again below `outputs`.

    Raises SpectraError where its configuration is no longer one, is another run today, or does not complete.
    """
    line = configuration_line(run)
    say(f"{run.run_id}: {' '.join([*train_words(), *line])}")
    experiment = load_experiment([*line, f"outputs={outputs}"])
    make_outputs(outputs)
    planned = plan(experiment)
    if planned.identity.run_id != run.run_id:
        raise SpectraError(f"{run.run_id}: its configuration is the run {planned.identity.run_id} today")
    if (status := run_here(planned)) != "completed":
        raise SpectraError(f"{run.run_id}: the second run ended as {status}")
    return differences(run, StoredRun(planned.folder.path))


def differences(run: ArchivedRun, again: StoredRun) -> list[str]:
    """The figures of a run's summary and history that another one has otherwise."""
    then, now = ({key: stored.required_summary.get(key) for key in DIGITS} for stored in (run, again))
    if run.history is not None and again.history is not None:
        then["history"], now["history"] = (history_tree(stored.history)["curves"] for stored in (run, again))
    found = []
    for key in then:
        a, b = _flat(then[key]), _flat(now[key])
        # NaN is like itself as a text.
        found += [
            f"{key}{name}: {a.get(name)}, {b.get(name)}" for name in a | b if repr(a.get(name)) != repr(b.get(name))
        ]
    return found


def _flat(tree: Any, above: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        return {key: value for name, node in tree.items() for key, value in _flat(node, f"{above}.{name}").items()}
    if isinstance(tree, (list, tuple)):
        return {key: value for i, node in enumerate(tree) for key, value in _flat(node, f"{above}[{i}]").items()}
    return {} if tree is None and not above else {above: tree}
