"""From Python and notebooks what the command line does: compose, run, launch, load and compare runs.

Letters: L routed layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_exp.config.compose import load_experiment, prepare_environment
from spectra_exp.config.plugins import load_typed_plugins
from spectra_exp.config.schema import Experiment
from spectra_exp.config.typed import typed_values
from spectra_exp.config.verb import VerbOptions
from spectra_exp.data.sources import check_data
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.interpret.open_run import newest_model
from spectra_exp.reporting.by_document import ByDocument, compare_by_document
from spectra_exp.reporting.collect import VALUE_COLUMNS, collect
from spectra_exp.reporting.sections import configurations_of
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.pairing import pair_problem
from spectra_exp.runs.plan import plan
from spectra_exp.runs.stored import StoredRun
from spectra_exp.statistics.comparison import Comparison
from spectra_exp.statistics.comparison import compare as compare_over_seeds
from spectra_exp.studies.command import launch_study
from spectra_exp.studies.definition import load_study
from spectra_exp.studies.work import run_here

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Run:
    """A run's folder, read as far as it is there."""

    path: Path

    @cached_property
    def _stored(self) -> StoredRun:
        return StoredRun(self.path)

    @property
    def run_id(self) -> str:
        """The name of its folder."""
        return self.path.name

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: status, metrics with their chance floors, sizes, timings.

        Raises SpectraError where it is missing or cannot be read.
        """
        self._stored.require(self._stored.folder.summary.name)
        return dict(self._stored.summary or {})

    @property
    def metrics(self) -> dict[str, float]:
        """The figures at the end, mean over layers, by name (docs/metrics.md has units and ranges)."""
        return dict(self.summary["metrics"])

    @property
    def history(self) -> pd.DataFrame:
        """Rows of step, fraction of training, split, layer ("0", ... or "all"), metric, value.

        Raises SpectraError where it is missing or cannot be read.
        """
        self._stored.require(self._stored.folder.history.name)
        return self._stored.history

    @property
    def counts(self) -> dict[int, np.ndarray]:
        """Assignments on the held-out set by step, int64 [L, E]; empty for a dense model."""
        return {step: snapshot.counts_LE for step, snapshot in self._stored.snapshots.items()}

    def model(self) -> PreTrainedModel:
        """The model of the newest whole checkpoint, on the CPU. Raises SpectraError without one."""
        return newest_model(self._stored.folder, "run it again").model


def compose(*overrides: str) -> Experiment:
    """The checked configuration of one run: `compose("router=switch", "seed=1")`. Raises ConfigError, one line."""
    return load_experiment(list(overrides))


def run(*overrides: str) -> Run:
    """Train and measure one run here, or find it finished: `run("router=switch", "trainer.max_steps=50")`.

    An unfinished one goes on from its last checkpoint. Raises ConfigError before training for what cannot be used, and
    SpectraError for a run that did not complete; KeyboardInterrupt where it was stopped.
    """
    experiment = load_experiment(list(overrides))
    check_data(experiment.data)
    make_outputs(Path(experiment.outputs))
    planned = plan(experiment)
    with stopping.launching():
        status = run_here(planned)
    found = Run(planned.folder.path)
    if status == "completed":
        return found
    if stopping.asked():
        raise KeyboardInterrupt
    raise SpectraError(f"{found.run_id}: {status}: {found.summary['error']}")


def launch(*overrides: str, study: str) -> pd.DataFrame:
    """Make what is missing of a study, with values of one's own: `launch("seed=0,1", study="b_sinkhorn")`.

    Returns its completed runs as `load_runs` does; those that failed are said on standard error. Raises ConfigError
    before the first job for what cannot be used.
    """
    prepare_environment()
    load_typed_plugins(overrides)
    launch_study(load_study(study).choice, list(overrides))
    runs = load_runs(typed_values(list(overrides)).get("outputs"))
    return runs[runs["studies"].map(lambda names: study in names)].reset_index(drop=True)


def load_runs(outputs: str | Path | None = None) -> pd.DataFrame:
    """The completed runs of an outputs folder, a row each: what they are, every setting by its key, every metric.

    `outputs` as on the command line where it is None. Columns of metrics are float64, NaN where one was not measured;
    docs/metrics.md has their units; `folder` is where the run lies. Runs that cannot be used are left out, as the
    tables do, and stand with the reason in `attrs["left_out"]`.
    """
    prepare_environment()
    folder = VerbOptions(None if outputs is None else str(outputs)).folder
    collected = collect(folder / "runs")
    run_id, metric, value, _ = VALUE_COLUMNS
    metrics = collected.values.pivot(index=run_id, columns=metric, values=value)
    found = collected.runs.set_index(run_id)
    cells = {cell: resolved.values for cell, resolved in configurations_of(collected).items()}
    settings = {name: cells[run["cell_id"]] for name, run in collected.by_run.items() if run["cell_id"] in cells}
    for frame in (_frame(settings), metrics):
        found = found.join(frame[[column for column in frame if column not in found]])
    found = found.reset_index()
    found["folder"] = [str(folder / "runs" / name) for name in found[run_id]]
    found.attrs["left_out"] = dict(collected.skipped)
    return found


def compare(
    runs: pd.DataFrame,
    a: str | Mapping[str, Any],
    b: str | Mapping[str, Any],
    metric: str = "val_loss",
    by: str = "seed",
) -> Comparison | ByDocument:
    """The difference a − b of a metric with its 95 % interval and test, as the tables have it.

    `runs`: of `load_runs`. `a`, `b`: a label such as "Switch top-2", or values by column. `by`: what the values are
    paired over, "seed", or "document": the held-out documents, and one run each is spoken of alone. Raises ConfigError
    for an arm without runs, with two of one seed, or of runs that may not be compared.
    """
    if by not in COMPARED:
        raise ConfigError.unknown("by", by, COMPARED)
    if metric not in runs:
        # A setting's column is called by its key, which has a dot.
        known = [column for column in runs if runs[column].dtype == float and "." not in column]
        raise ConfigError.unknown("metric", metric, known)
    arms = [_arm(runs, name, wanted) for name, wanted in (("a", a), ("b", b))]
    first, second = (arm.to_dict("index") for arm in arms)
    for seed in sorted(first.keys() & second.keys()):
        if problem := pair_problem(first[seed] | {"seed": seed}, second[seed] | {"seed": seed}):
            raise ConfigError("runs", f"the arms may not be compared: {problem}", "compare runs of one set-up")
    return COMPARED[by](arms[0], arms[1], metric)


def _over_seeds(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> Comparison:
    return compare_over_seeds(a[metric].to_dict(), b[metric].to_dict())


def _over_documents(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> ByDocument:
    first, second = ([StoredRun(Path(path)) for path in arm["folder"]] for arm in (a, b))
    return compare_by_document(first, second, metric)


# What a comparison can be paired over; each takes the runs of two arms, by seed, and a metric.
COMPARED: dict[str, Callable[[pd.DataFrame, pd.DataFrame, str], Comparison | ByDocument]] = {
    "seed": _over_seeds,
    "document": _over_documents,
}


def _arm(runs: pd.DataFrame, name: str, wanted: str | Mapping[str, Any]) -> pd.DataFrame:
    """The runs with these values, by seed."""
    chosen = runs
    for column, value in ({"label": wanted} if isinstance(wanted, str) else wanted).items():
        if column not in runs:
            raise ConfigError.unknown(name, column, runs.columns)
        known = list(dict.fromkeys(map(str, runs[column])))
        chosen = chosen[chosen[column].map(str) == str(value)]
        if chosen.empty:
            raise ConfigError.unknown(name, str(value), known)
    if chosen["seed"].duplicated().any():
        labels = ", ".join(dict.fromkeys(chosen["run_id"]))
        raise ConfigError(name, f"two of its runs have one seed: {labels}", "give values that tell them apart")
    return chosen.set_index("seed")


def _frame(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = VALUE_COLUMNS[0]
    return frame
