"""One job: a planned run made in this process, or in a worker from what Hydra composed there. Both say how it ended."""

from __future__ import annotations

import sys

from omegaconf import DictConfig, OmegaConf

from spectra_exp.config.compose import composed_experiment, hydra_settings, prepare_environment
from spectra_exp.config.plugins import load_typed_plugins
from spectra_exp.foundations import stopping
from spectra_exp.foundations.devices import see_what_was_handed_on
from spectra_exp.foundations.errors import SpectraError
from spectra_exp.runs.plan import Plan, plan
from spectra_exp.runs.ranks import rank, world_size
from spectra_exp.training import execute as training
from spectra_exp.training.launcher import execute_in_processes

NOT_STARTED = "not started"


def run_here(planned: Plan) -> str:
    """The status of a run that was planned in this process."""
    stopping.prepare_worker()
    if stopping.asked() or stopping.told_to_stop():
        return NOT_STARTED
    see_what_was_handed_on()
    with stopping.busy:
        return _attempts(planned, hydra_settings(planned.experiment.overrides))


def run_in_worker(config: DictConfig) -> str:
    """The status of the run whose configuration Hydra composed in a worker process of one of its launchers."""
    from hydra.core.hydra_config import HydraConfig

    stopping.prepare_worker()
    if stopping.asked() or stopping.told_to_stop():
        return NOT_STARTED
    prepare_environment()
    see_what_was_handed_on()
    hydra = HydraConfig.get()
    with stopping.busy:
        try:
            load_typed_plugins(list(hydra.overrides.task))
            planned = plan(composed_experiment(config, hydra.runtime.choices, list(hydra.overrides.task)))
        except SpectraError as error:
            print(f"error: {error}", file=sys.stderr)
            return "failed"
        return _attempts(planned, OmegaConf.to_yaml(hydra))


def _attempts(planned: Plan, hydra_config: str) -> str:
    """The status after as many attempts as launch.retries allows.

    The run's folder is printed as the last line on standard output. A run that fails prints its one line and lets the
    others of a launch go on.
    """
    launch = planned.experiment.launch
    status, left = "failed", 1 + launch.retries
    try:
        while left and status == "failed":
            left -= 1
            if planned.experiment.trainer.processes > world_size():
                status = execute_in_processes(planned)
            else:
                status = training.execute(planned, hydra_config)
    except SpectraError as error:
        # Such as a disk too full for the summary: the line says it, and the other jobs go on.
        print(f"error: {error}", file=sys.stderr)
        return "failed"
    if status == "failed" and launch.on_failure == "stop":
        stopping.tell_to_stop()
    if rank() == 0:
        print(planned.folder.path, flush=True)
    return status
