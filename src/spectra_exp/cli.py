"""The command line: check everything, then let Hydra launch the jobs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from spectra_exp.config.tree import KINDS
from spectra_exp.foundations import stopping
from spectra_exp.foundations.errors import ConfigError, SpectraError
from spectra_exp.runs.folder import make_outputs
from spectra_exp.runs.ranks import rank, supervised, world_size

# Exit status of a process ended by SIGINT, as shells report it.
INTERRUPTED = 130
FLAGS = ("--help", "--multirun", "--cfg", "--info", "--resolve", "--package", "--hydra-help", "--version")
# Flags of Hydra's that would lead it to another configuration than the one checked here.
UNUSED_FLAGS = ("config_path", "config_name", "config_dir", "experimental_rerun")


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _main(argv)
    except SpectraError as error:
        # All ranks of a run meet the same one.
        if rank() == 0:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # Once for all processes of a run: by the one that started them, or the first.
        if rank() == 0 and not supervised():
            print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


def _main(argv: list[str]) -> int:
    from spectra_exp.config.compose import prepare_environment
    from spectra_exp.config.plugins import load_typed_plugins

    prepare_environment()
    load_typed_plugins(argv)
    if any(a in ("--help", "-h") for a in argv):
        from spectra_exp.config.help import print_help

        print_help([a for a in argv if not a.startswith("-") and "=" not in a])
        return 0
    args = parse_arguments(argv)
    if args.hydra_help or args.shell_completion:
        return _hydra_main(argv, _no_task)
    chosen = [o for o in args.overrides if o.partition("=")[0] in KINDS]
    if chosen or args.multirun:
        return _many(args, chosen)
    return _one(args, argv)


def _one(args: argparse.Namespace, argv: list[str]) -> int:
    """A single run."""
    from spectra_exp.config.compose import load_experiment
    from spectra_exp.data.sources import check_data
    from spectra_exp.studies.launchers import make_engine
    from spectra_exp.studies.search_space import asks_for_search

    if key := asks_for_search(args.overrides):
        raise ConfigError(key, "a search is many runs", "add -m")
    experiment = load_experiment(args.overrides)
    if experiment.choices["launch"] != "local":
        given = experiment.choices["launch"]
        raise ConfigError("launch", f"'{given}' has no effect on a single run", "add -m or drop it")
    if own := [o for o in args.overrides if o.startswith("hydra")]:
        # A misspelt launcher is named as such before it is called of no effect.
        make_engine(own, task)
        raise ConfigError(own[0].partition("=")[0], "has no effect on a single run", "add -m or drop it")
    if args.cfg or args.info:
        return _hydra_main(argv, _no_task)
    check_data(experiment.data)
    make_outputs(Path(experiment.outputs))
    from spectra_exp.runs.plan import plan

    plan(experiment)
    ended: list[str] = []

    def one_task(config: DictConfig) -> None:
        ended.append(task(config))

    # A process that a run's launcher started follows that one.
    with nullcontext() if supervised() else stopping.launching():
        _hydra_main(args.overrides, one_task)
    if ended == ["completed"]:
        # A stop asked for in the last evaluation came too late to stop anything.
        return 0
    if stopping.asked():
        raise KeyboardInterrupt
    return 1


def _many(args: argparse.Namespace, chosen: list[str]) -> int:
    """The jobs of a study, or of a multirun."""
    from spectra_exp.studies.command import launch_multirun, launch_study
    from spectra_exp.studies.search_space import asks_for_search

    if world_size() > 1:
        raise ConfigError(
            "command line", "torchrun makes one run", "start python without it: trainer.processes=N holds for every run"
        )
    if args.cfg or args.info:
        raise ConfigError("command line", "--cfg and --info show one run", "see python -m spectra_exp.studies show")
    typed = [o for o in args.overrides if o not in chosen]
    if asks_for_search(typed):
        from spectra_exp.studies.search import launch_search

        if chosen:
            raise ConfigError("command line", f"'{chosen[0]}' and a search were given", "drop one of the two")
        return launch_search(typed, task)
    if not chosen:
        return launch_multirun(typed, task)
    if len(chosen) > 1:
        raise ConfigError("command line", f"'{chosen[0]}' and '{chosen[1]}' were given", "launch one study at a time")
    return launch_study(chosen[0], typed, task)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in any order. ConfigError for a flag that is unknown or of no use here."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError("command line", message, "see `python train.py --help`")

    parser.error = refuse  # type: ignore[method-assign]
    args, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise ConfigError.unknown("command line", unknown[0], FLAGS)
    for name in UNUSED_FLAGS:
        if getattr(args, name) is not None:
            refuse(f"--{name.replace('_', '-')} is not used here")
    if (args.resolve or args.package) and not args.cfg:
        refuse("--resolve and --package go with --cfg")
    if sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.shell_completion))) > 1:
        refuse("--run, --multirun, --cfg and --info exclude each other")
    return args


def _hydra_main(argv: list[str], function: Callable[[DictConfig], Any]) -> int:
    import hydra

    from spectra_exp.config.tree import project_root

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.argv = [sys.argv[0], *argv]
    hydra.main(version_base="1.3", config_path=str(project_root() / "conf"), config_name="config")(function)()
    return 0


def _no_task(config: DictConfig) -> None:
    """For Hydra's own listings, which never run a job."""


def task(config: DictConfig) -> str:
    """One job: trains, and prints the run's folder as the last line on standard output. Returns its status.

    A failed job prints its one line and lets the others of a multirun go on.
    """
    from hydra.core.hydra_config import HydraConfig

    from spectra_exp.config.compose import prepare_environment
    from spectra_exp.foundations.devices import see_what_was_handed_on

    stopping.prepare_worker()
    if stopping.asked() or stopping.told_to_stop():
        return "not started"
    prepare_environment()
    see_what_was_handed_on()
    with stopping.busy:
        return _attempts(list(HydraConfig.get().overrides.task), OmegaConf.to_yaml(HydraConfig.instance().cfg.hydra))


def _attempts(overrides: list[str], hydra_config: str) -> str:
    """The job's status after as many attempts as launch.retries allows."""
    from spectra_exp.config.compose import load_experiment
    from spectra_exp.runs.plan import plan
    from spectra_exp.training.execute import execute
    from spectra_exp.training.launcher import execute_in_processes

    status, left = "failed", 1
    try:
        planned = plan(load_experiment(overrides))
        launch = planned.experiment.launch
        left += launch.retries
        while left and status == "failed":
            left -= 1
            if planned.experiment.trainer.processes > world_size():
                status = execute_in_processes(planned)
            else:
                status = execute(planned, hydra_config)
    except SpectraError as error:
        # Such as a disk too full for the summary: the line says it, and the other jobs go on.
        print(f"error: {error}", file=sys.stderr)
        return "failed"
    if status == "failed" and launch.on_failure == "stop":
        stopping.tell_to_stop()
    if rank() == 0:
        print(planned.folder.path, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
