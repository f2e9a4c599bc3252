"""`python train.py -m search=NAME ...`: hydra-optuna-sweeper proposes trials, this package runs and keeps them.

The plugin (1.3.0, for Optuna 2.10) is used as released; what stands in the way is kept from it here:
it takes a job's return value for the objective (a job here returns its status: TrialLauncher reads the summary); a NaN
ends its sweep, since it tells Optuna a failed trial with a value (no value is ever NaN here); its n_trials counts one
launch, not the study; a killed launch leaves trials running for ever; a seeded sampler repeats its first draws when
resumed (ByTrial); `study.best_trial` raises when every trial failed; its grid leaves out the last value of a range.

Why not Optuna's own ask and tell behind hydra/sweeper=optuna: that would save about 50 lines and take about 95 for
what the plugin gives: distributions out of Hydra's intervals and choices, batches of trials with a rate of failures
that ends them, and the options of hydra/sweeper and of five samplers.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from spectra_exp.config.compose import check_values, load_experiment, own_hydra
from spectra_exp.config.schema import Experiment
from spectra_exp.config.typed import as_typed, parse_overrides, typed_values
from spectra_exp.data.sources import check_data
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError, first_line
from spectra_exp.measure import METRICS
from spectra_exp.measure.others import figure
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.lock import RunLock
from spectra_exp.runs.plan import plan
from spectra_exp.studies.launchers import composed, make_engine
from spectra_exp.studies.search_space import Space, check_space, is_search_key, read_space
from spectra_exp.studies.search_table import TrialRow, print_front, write_search_table
from spectra_exp.studies.work import run_in_worker

if TYPE_CHECKING:
    import optuna

# Figures of the loss, which are not routing metrics.
LOSSES = ("val_loss", "val_perplexity", "val_accuracy")
DIRECTIONS = {"lower": "minimize", "higher": "maximize"}
# The plugin's keys that have no use here, and what to do instead.
UNUSED_KEYS = {
    "hydra.sweeper.direction": "each objective has its own direction; choose with search.objectives",
    "hydra.sweeper.search_space": "give the values on the command line or in hydra.sweeper.params",
    "hydra.sweeper.custom_search_space": "give the values on the command line or in hydra.sweeper.params",
}
# How overrides begin that choose the launcher and its folder.
LAUNCHING = ("launch", "hydra/launcher", "hydra.launcher.", "outputs")
GRID, CMAES = "GridSampler", "CmaEsSampler"


@dataclass(frozen=True)
class Search:
    """A checked search. `directions`: minimize or maximize, by objective; `point`: a trial that can run."""

    name: str
    directions: dict[str, str]
    config: DictConfig
    space: Space
    point: Experiment

    @property
    def outputs(self) -> Path:
        return Path(self.point.outputs)

    @property
    def options(self) -> DictConfig:
        """The plugin's options."""
        return self.config.hydra.sweeper

    def settings(self) -> dict[str, Any]:
        """What makes it this search and no other, as plain values."""
        return {
            "objectives": list(self.directions),
            "space": self.space.axes,
            "point": plan(self.point).identity.run_id,
        }


def launch_search(typed: list[str]) -> int:
    """Run trials until the stored study has hydra.sweeper.n_trials of them; returns the exit status.

    Raises ConfigError for anything that is wrong before the first trial.
    """
    if find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        raise ConfigError(
            "hydra/sweeper", "hydra-optuna-sweeper is not installed", "pip install -c constraints.txt -e '.[search]'"
        )
    # What is left has no intervals, which no launcher understands.
    engine = make_engine([o for o in typed if o.startswith(LAUNCHING)], run_in_worker)
    search = read_search(typed)
    check_data(search.point.data)
    make_outputs(search.outputs)
    make_outputs(search.outputs / "search")
    with RunLock(search.outputs / "search" / search.name), stopping.launching():
        return _run(search, engine)


def read_search(typed: list[str]) -> Search:
    """The search that a command line describes. Raises ConfigError."""
    given = parse_overrides(typed)
    own = [o for o in given if is_search_key(o.key_or_group) or o.key_or_group.split(".")[0] in ("launch", "outputs")]
    for override in own:
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(key, f"'{override.input_line}' was given", "a search has one value of it")
        if key in UNUSED_KEYS:
            raise ConfigError(key, "is not used here", UNUSED_KEYS[key])
    values = typed_values([as_typed(o) for o in own])
    if values.get("search", "none") == "none":
        raise ConfigError("search", "no objective was given", "add search=single or search=pareto")
    if values.get("hydra/sweeper", "optuna") != "optuna":
        raise ConfigError("hydra/sweeper", f"'{values['hydra/sweeper']}' does not search", "give hydra/sweeper=optuna")
    plain = [as_typed(o) for o in own if not o.key_or_group.startswith("hydra")]
    options = check_values(plain).search
    directions = {name: _direction(name) for name in options.objectives}
    if not directions or len(directions) < len(options.objectives):
        raise ConfigError("search.objectives", f"{options.objectives} was given", "give metrics, each once")
    config = _compose_sweeper([as_typed(o) for o in own])
    name = _check_sweeper(config.hydra.sweeper, len(directions))
    space = read_space(typed, config.hydra.sweeper.params or {})
    if not any(line.startswith("study=") for line in [*space.fixed, *space.axes.values()]):
        space.fixed.append(f"study={name}")
    return Search(name, directions, config, space, load_experiment(check_space(space)))


def _direction(name: str) -> str:
    """minimize or maximize. Raises ConfigError for a figure that is unknown or has no better end."""
    ConfigError.refuse_unknown("search.objectives", [name], [*LOSSES, *METRICS])
    direction = figure(name).direction
    if direction not in DIRECTIONS:
        raise ConfigError("search.objectives", f"'{name}' is neither better low nor high", "give another metric")
    return DIRECTIONS[direction]


def _compose_sweeper(overrides: list[str]) -> DictConfig:
    """Hydra's whole configuration with the plugin's options. Raises ConfigError."""
    with composed(overrides) as (config, _):
        OmegaConf.resolve(config.hydra.sweeper)
        return config


def _check_sweeper(options: DictConfig, objectives: int) -> str:
    """The study's name. Raises ConfigError for options that the plugin cannot use."""
    for key, least in (("n_trials", 1), ("n_jobs", 1), ("max_failure_rate", 0)):
        if options[key] < least:
            raise ConfigError(f"hydra.sweeper.{key}", f"{options[key]} was given", f"must be at least {least}")
    if options.max_failure_rate > 1:
        raise ConfigError("hydra.sweeper.max_failure_rate", f"{options.max_failure_rate} was given", "give at most 1")
    sampler = options.sampler._target_.rpartition(".")[2]
    if sampler == GRID:
        raise ConfigError("hydra/sweeper/sampler", "a grid needs no search", "give values with commas, and no search=")
    if sampler == CMAES and objectives > 1:
        raise ConfigError("hydra/sweeper/sampler", "cmaes takes one objective", "give tpe or nsgaii")
    name = str(options.study_name or "")
    if not re.fullmatch(r"\w[\w.-]{0,80}", name):
        raise ConfigError("search.name", f"'{name}' cannot be a file's name", "give letters, digits, - and _")
    return name


def _run(search: Search, engine: Any) -> int:
    import optuna

    from spectra_exp.studies.search_trials import ByTrial, TrialLauncher, finished_trials, open_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A failed trial is told by TrialLauncher, in one line.
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)
    storage = _open_storage(search.options.storage)
    plugin, make_sampler = _instantiate(search)
    study = open_study(storage, search.name, list(search.directions.values()), search.settings())
    total = search.options.n_trials
    todo = total - len(finished_trials(study))
    if todo <= 0:
        have = f"the stored study has {total - todo} trials"
        print(f"{have}; hydra.sweeper.n_trials={total} asks for no more", file=sys.stderr)
    seed = search.options.sampler.get("seed")
    plugin.direction = list(search.directions.values())
    plugin.storage, plugin.study_name, plugin.n_trials, plugin.params = storage, search.name, todo, None
    plugin.sampler = ByTrial(make_sampler, search.config.search.seed if seed is None else seed)
    plugin.launcher = TrialLauncher(study, storage, list(search.directions), search.space.fixed, total, engine)
    try:
        if todo > 0:
            plugin.sweep(list(search.space.axes.values()))
    except ValueError:
        # The plugin ends by asking for the best trial, also when there is none.
        if len(finished_trials(study)) < total or study.best_trials:
            raise
    finally:
        rows = _write_table(search, study)
    return 0 if any(row.on_front for row in rows) else 1


def _open_storage(url: str | None) -> Any:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.get_storage(url)
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        problem = f"{url} cannot be opened ({first_line(error)})"
        raise ConfigError("hydra.sweeper.storage", problem, "give a database's URL") from error


def _instantiate(search: Search) -> tuple[Any, Callable[[int], Any]]:
    """The plugin, made as Hydra makes it, and its sampler by seed."""
    config = search.config
    folder = search.outputs / "search" / search.name
    OmegaConf.set_readonly(config, False)
    config.hydra.sweep.dir = str(folder)
    node = config.hydra.sweeper.sampler
    seeded = "seed" in node
    try:
        with own_hydra() as hydra:
            sweeper: Any = Plugins.instance().instantiate_sweeper(
                hydra_context=HydraContext(hydra.config_loader, Callbacks(config)),
                task_function=run_in_worker,
                config=config,
            )
        return sweeper.sweeper, lambda seed: instantiate(node, **({"seed": seed} if seeded else {}))
    except HydraException as error:
        raise ConfigError("hydra.sweeper.sampler", " ".join(str(error.__cause__ or error).split())) from error


def _write_table(search: Search, study: optuna.Study) -> list[TrialRow]:
    from spectra_exp.studies.search_trials import finished_trials

    front = {trial.number for trial in study.best_trials}
    rows = [
        TrialRow(
            trial.number + 1,
            trial.number in front,
            dict(zip(search.directions, trial.values or (), strict=False)),
            trial.params,
            trial.user_attrs.get("run_id", ""),
            trial.user_attrs.get("reason", ""),
        )
        for trial in finished_trials(study)
    ]
    axes = list(search.space.axes)
    path = write_search_table(search.outputs / "tables", search.name, search.directions, axes, rows)
    if front:
        print_front(search.name, search.directions, axes, rows)
    print(path, flush=True)
    return rows
