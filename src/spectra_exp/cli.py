"""The command line: check everything, then let Hydra launch the jobs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from spectra_exp import stopping
from spectra_exp.errors import ConfigError, SpectraError

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
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


def _main(argv: list[str]) -> int:
    from spectra_exp.config.compose import load_experiment, prepare_environment
    from spectra_exp.config.typed import expand_jobs
    from spectra_exp.data.sources import check_data

    prepare_environment()
    if any(a in ("--help", "-h") for a in argv):
        from spectra_exp.config.help import print_help

        print_help([a for a in argv if not a.startswith("-") and "=" not in a])
        return 0
    args = parse_arguments(argv)
    if args.hydra_help or args.shell_completion:
        return _hydra_main(argv, _no_task)
    lines = expand_jobs(args.overrides, args.multirun)
    check_jobs(lines)
    jobs = [load_experiment(job) for job in lines]
    if not args.multirun and jobs[0].choices["launch"] != "local":
        raise ConfigError("launch", f"'{jobs[0].choices['launch']}' has no effect on a single run", "add -m or drop it")
    if args.cfg or args.info:
        return _hydra_main(argv, _no_task)
    for experiment in jobs:
        check_data(experiment.data)
    for outputs in {experiment.outputs for experiment in jobs}:
        make_outputs(Path(outputs))
    # Content is hashed and tokenised once, and a bad file is found before the first job.
    from spectra_exp.runs.execute import plan

    plans = [plan(experiment) for experiment in jobs]
    with stopping.launching():
        _hydra_main([*(["--multirun"] if args.multirun else []), *args.overrides], task)
    if stopping.asked():
        raise KeyboardInterrupt
    return 0 if all(p.finished() for p in plans) else 1


def check_jobs(lines: list[list[str]]) -> None:
    """Raise ConfigError for a multirun without a job, or with one twice."""
    if not lines:
        raise ConfigError("command line", "the sweep has no job", "give at least one value")
    seen: set[tuple[str, ...]] = set()
    for line in lines:
        if tuple(line) in seen:
            raise ConfigError("command line", f"the sweep has the job '{' '.join(line)}' twice", "give each value once")
        seen.add(tuple(line))


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


def make_outputs(folder: Path) -> None:
    """Make the folder of all outputs. ConfigError when that cannot be done or nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("outputs", f"{folder}: {error.strerror}", "give another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("outputs", f"{folder} cannot be written to", "give another folder")


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

    from spectra_exp.config.compose import load_experiment, prepare_environment
    from spectra_exp.runs.execute import execute, plan

    stopping.prepare_worker()
    if stopping.asked():
        return "not started"
    prepare_environment()
    with stopping.busy:
        try:
            planned = plan(load_experiment(list(HydraConfig.get().overrides.task)))
            status = execute(planned, OmegaConf.to_yaml(HydraConfig.instance().cfg.hydra))
        except SpectraError as error:
            # Such as a disk too full for the summary: the line says it, and the other jobs go on.
            print(f"error: {error}", file=sys.stderr)
            return "failed"
        print(planned.folder.path, flush=True)
    return status
